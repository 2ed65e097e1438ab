"""Trained weights to disk and back: an adapter beside its `dfk.json`, or a whole model with its processor.

Promises: one process writes; what `restore` reads is bit for bit what `save` wrote (adapters are fp32)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dfkeval.models import metadata as cards
from dfkeval.models.processor import TEMPLATE
from dfktrain.config.launch import is_main_process
from dfktrain.weights import extra_tensors

if (
    TYPE_CHECKING
):  # dfktrain.training.trainer imports transformers, and an engine may have to be imported before it
    from dfktrain.engines._base import Base
    from dfktrain.training.trainer import AnswerTrainer


def sharded(trainer: AnswerTrainer) -> bool:
    """Whether FSDP or DeepSpeed spreads the weights over the ranks."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def gathered(trainer: AnswerTrainer) -> dict[str, Tensor] | None:
    """The whole state dict of a model that FSDP or DeepSpeed has sharded (every rank must ask), else None."""
    if not sharded(trainer):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def save(
    base: Base, model: Any, folder: Path, card: cards.Card | None, state: dict[str, Tensor] | None
) -> Path:
    """The adapter (or the whole model with its processor) and its `dfk.json`; returns `folder`.

    state: the weights, where the model's own are sharded."""
    if is_main_process():
        model.save_pretrained(str(folder), state_dict=state)
        if not _is_adapter(model):
            base.processor.save_pretrained(str(folder))
            extra_tensors.carry(model, base.name, folder)
        else:
            (folder / "README.md").unlink(missing_ok=True)  # the library's empty form; `modelcard` writes one
        if _is_adapter(model) and base.own_template:
            (folder / TEMPLATE).write_text(str(base.processor.chat_template), encoding="utf-8")
        if card is not None:
            cards.write(folder, card)
    return folder


def restore(model: Any, folder: Path) -> None:
    """Put the weights of a finished stage into `model`."""
    if _is_adapter(model):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, _tensors(folder))
    else:
        model.load_state_dict(_tensors(folder), strict=False)  # tied weights are saved once


def _is_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(str(path)).items()}
