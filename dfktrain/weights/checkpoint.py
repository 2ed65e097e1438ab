"""Save trained weights and read them back: an adapter with its `dfk.json`, or a whole model with its processor.

Guarantees:
    - One process writes.
    - What `restore` reads equals bit for bit what `save` wrote (adapters are in fp32)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dfkeval.models import metadata
from dfkeval.models.processor import TEMPLATE
from dfktrain.config.launch import is_main_process
from dfktrain.weights import extra_tensors

if TYPE_CHECKING:
    from transformers import Trainer

    from dfktrain.engines import LoadedBase


def sharded(trainer: Trainer) -> bool:
    """Return whether FSDP or DeepSpeed spreads the weights over the ranks."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def gathered(trainer: Trainer) -> dict[str, Tensor] | None:
    """Return the whole state dict of a sharded model, None for one that is not sharded.

    Every rank must call this."""
    if not sharded(trainer):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def save(
    base: LoadedBase,
    model: Any,
    folder: Path,
    card: metadata.ModelMetadata | None,
    state: dict[str, Tensor] | None,
) -> Path:
    """Save the adapter, or the whole model with its processor, and its `dfk.json`.

    Args:
        base: The loaded base, whose processor and chat template are saved along.
        model: The trained model.
        folder: The folder to write.
        card: Contents of `dfk.json`; None writes none.
        state: The weights if those of `model` are sharded, else None.

    Returns:
        `folder`.
    """
    if is_main_process():
        model.save_pretrained(str(folder), state_dict=state)
        if not _is_adapter(model):
            base.processor.save_pretrained(str(folder))
            extra_tensors.copy_extra_tensors(model, base.name, folder)
        else:
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; `model_card` writes ours
        if _is_adapter(model) and base.own_template:
            (folder / TEMPLATE).write_text(str(base.processor.chat_template), encoding="utf-8")
        if card is not None:
            metadata.write(folder, card)
    return folder


def restore(model: Any, folder: Path) -> None:
    """Load the weights that `save` wrote to a folder into a model of the same kind."""
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
