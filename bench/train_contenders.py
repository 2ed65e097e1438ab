"""The ways to train that `bench/train_gpu.py` compares, each as a function that trains until it is stopped.

Everybody gets the same base, rows, module names, rank, optimiser, learning rate, precision and rows a step.
Rows are encoded by this package's collator, whose mask everybody shares, but for TRL, which makes its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gpu_workload
from pieces import began

RANK, ALPHA, RATE = 16, 32, 1e-4
ENDLESS = 100_000
"""Steps of a run that the recorder stops."""


@dataclass(frozen=True)
class Task:
    """What one contender is asked. micro: rows of a micro-batch to begin with."""

    work: Path
    data: str
    tiny: bool
    cuda: bool
    micro: int

    @property
    def sizes(self) -> gpu_workload.Scale:
        """The benchmark's sizes."""
        return gpu_workload.scale(self.tiny)

    @property
    def base(self) -> str:
        """What the model is loaded by."""
        return gpu_workload.base_name(self.work, self.tiny)

    @property
    def rows(self) -> Path:
        """The data set."""
        return self.work / "data" / self.data / "rows.jsonl"

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the data set."""
        found: dict[str, Any] = json.loads((self.rows.parent / "facts.json").read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True)
class Contender:
    """One column of the table.

    what: in words. run: trains. missing: why it cannot run on this machine. environment: set before anything
    is imported. fla: whether flash-linear-attention may be used."""

    what: str
    run: Callable[[Task, Any], None]
    missing: Callable[[], str | None] = lambda: None
    environment: tuple[tuple[str, str], ...] = ()
    fla: bool = True


def hide_fla() -> None:
    """Make flash-linear-attention look as if it were not installed."""
    sys.modules["fla"] = None  # type: ignore[assignment]


def lift_refusal() -> None:
    """Let fla run its backward pass on Hopper cards with Triton 3.4 to 3.7, with the settings that are known."""
    if sys.modules.get("fla", ...) is not None and importlib.util.find_spec("fla") is not None:
        import fla.ops.common.chunk_o as module

        module.TRITON_ABOVE_3_7_1 = True
        known_settings()


def known_settings() -> list[str]:
    """Give fla's kernels, also Unsloth's copy of them, the settings that won here; return those still to be tuned.

    Everybody starts minutes earlier, and runs the same kernels as fast as before."""
    import torch

    from dfkeval.models import fla_settings

    if not torch.cuda.is_available():
        return []
    known = fla_settings.settings_for(torch.cuda.get_device_capability(), fla_settings.HEAD)
    older = {setting.module: setting.module.replace("modules.norm.", "modules.") for setting in known}
    copies = tuple(replace(each, module=older[each.module]) for each in known)
    left = set(fla_settings.keep_settings(known)) & set(fla_settings.keep_settings(copies))
    return sorted(left)


def linear_names(model: Any) -> list[str]:
    """Return the full names of all linear layers but the head."""
    from torch import nn

    head = model.get_output_embeddings()
    return [name for name, each in model.named_modules() if isinstance(each, nn.Linear) and each is not head]


def encoded(task: Task) -> tuple[list[Any], Any]:
    """Return (samples, collator) of the data set."""
    from dfkdata import load_rows
    from dfkeval.models.processor import load_processor
    from dfktrain import Collator

    collator = Collator(load_processor(task.base))
    return [collator.encode(row) for row in load_rows(task.rows)], collator


def adapted(task: Task, dtype: str = "bfloat16") -> Any:
    """Return transformers' model with a PEFT adapter, as a user writes it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from dfkeval.models.source import model_source

    kind = getattr(torch, dtype) if task.cuda else torch.float32
    source = model_source(task.base)
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=kind, attn_implementation="sdpa")
    model = model.to("cuda" if task.cuda else "cpu")
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=linear_names(model), task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def arguments(task: Task, micro: int, workers: int = 0) -> dict[str, Any]:
    """Return the library's training arguments that all contenders share."""
    return {
        "output_dir": str(task.work / "scratch"), "max_steps": ENDLESS, "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, task.sizes.batch // micro), "learning_rate": RATE,
        "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "bf16": task.cuda, "logging_steps": 10,
        "save_strategy": "no", "report_to": "none", "remove_unused_columns": False, "disable_tqdm": True,
        "dataloader_num_workers": workers, "dataloader_pin_memory": task.cuda, "use_cpu": not task.cuda,
        "seed": 42, "label_names": ["labels"],
    }  # fmt: skip


def train_fitting(task: Task, recorder: Any, make: Callable[[int], Any]) -> None:
    """Train with micro-batches of `task.micro` rows, or with half as many where memory does not suffice."""
    import torch

    micro = task.micro
    recorder.install()
    while True:
        recorder.facts["micro"] = micro
        trainer = make(micro)
        try:
            trainer.train()
            return
        except torch.OutOfMemoryError:
            if micro == 1 or recorder.stop_at is not None:
                raise
        del trainer
        recorder.trainer = None
        torch.cuda.empty_cache()
        recorder.reset()
        micro //= 2


def plain(task: Task, recorder: Any) -> None:
    """transformers' Trainer and PEFT, PyTorch's kernels, logits everywhere, random order."""
    from transformers import Trainer, TrainingArguments

    samples, collator = encoded(task)
    model = adapted(task)

    def make(micro: int) -> Any:
        settings = TrainingArguments(**arguments(task, micro))
        return Trainer(model=model, args=settings, train_dataset=samples, data_collator=collator)

    train_fitting(task, recorder, make)


def tuned(task: Task, recorder: Any) -> None:
    """The same with fla, batches of similar length, loader workers, and the head at scored positions only."""
    lift_refusal()
    import torch
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_pt_utils import LengthGroupedSampler

    samples, collator = encoded(task)
    lengths = [len(sample) for sample in samples]
    model = adapted(task)
    kind = "cuda" if task.cuda else "cpu"

    class Tuned(Trainer):  # type: ignore[misc]
        """Trainer with a scored head and length groups."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs.pop("labels")
            net = self.accelerator.unwrap_model(model).get_base_model()
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=task.cuda):
                hidden = net.model(**inputs, use_cache=False).last_hidden_state
                scored = labels[:, 1:] != -100
                logits = net.lm_head(hidden[:, :-1][scored])
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][scored], reduction="sum")
            return loss / num_items_in_batch

    def make(micro: int) -> Any:
        settings = TrainingArguments(**arguments(task, micro, _workers(task)))
        trainer = Tuned(model=model, args=settings, train_dataset=samples, data_collator=collator)
        trainer.model_accepts_loss_kwargs = True
        return trainer

    train_fitting(task, recorder, make)


def _workers(task: Task) -> int:
    return 0 if task.tiny else min(8, (os.cpu_count() or 2) - 1)


def no_unsloth() -> str | None:
    """Say why Unsloth cannot be used here."""
    missing = [
        name for name in ("unsloth", "unsloth_zoo", "bitsandbytes") if importlib.util.find_spec(name) is None
    ]
    if missing:
        return f"{', '.join(missing)} cannot be imported here"
    return None if _has_card() else "Unsloth's vision models need a card"


def _has_card() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def unsloth(task: Task, recorder: Any, checkpointing: bool | str = "unsloth") -> None:
    """Unsloth's model, adapter and loss under transformers' Trainer."""
    import unsloth as library  # first: it patches the others  # isort: skip

    import torch
    from transformers import Trainer, TrainingArguments

    from dfkeval.models.source import model_source

    model, _ = library.FastVisionModel.from_pretrained(
        model_name=model_source(task.base), max_seq_length=2048, dtype=torch.bfloat16, load_in_4bit=False,
        use_gradient_checkpointing=checkpointing, use_exact_model_name=True,
    )  # fmt: skip
    model = library.FastVisionModel.get_peft_model(
        model, r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules=linear_names(model),
        use_gradient_checkpointing=checkpointing, random_state=42,
    )  # fmt: skip
    library.FastVisionModel.for_training(model)
    recorder.facts["tuned_here"] = known_settings()
    samples, collator = encoded(task)

    def make(micro: int) -> Any:
        workers = 0 if checkpointing else _workers(task)
        settings = TrainingArguments(**arguments(task, micro, workers))
        return Trainer(model=model, args=settings, train_dataset=samples, data_collator=collator)

    train_fitting(task, recorder, make)


def unsloth_tuned(task: Task, recorder: Any) -> None:
    """Unsloth without checkpointing and with loader workers."""
    unsloth(task, recorder, checkpointing=False)


def no_trl() -> str | None:
    """Say why TRL cannot be used here."""
    missing = [name for name in ("trl", "datasets") if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} cannot be imported here" if missing else None


def trl(task: Task, recorder: Any) -> None:
    """TRL's SFTTrainer on prompt and completion, with its own defaults, mask and loss."""
    lift_refusal()
    import torch
    from datasets import Dataset, Image, List
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText
    from trl import SFTConfig, SFTTrainer

    from dfkdata import load_rows
    from dfkeval.models.processor import load_processor
    from dfkeval.models.source import model_source

    rows = [_exported(row) for row in load_rows(task.rows)]
    if task.data == "text":
        rows = [{key: value for key, value in row.items() if key != "images"} for row in rows]
    data = Dataset.from_list(rows)
    if task.data != "text":
        data = data.cast_column("images", List(Image()))
    source = model_source(task.base)
    kind = torch.bfloat16 if task.cuda else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, dtype=kind, attn_implementation="sdpa")
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=linear_names(model), task_type="CAUSAL_LM")

    def make(micro: int) -> Any:
        settings = SFTConfig(**arguments(task, micro, _workers(task)), max_length=None)
        return SFTTrainer(
            model=model, args=settings, train_dataset=data, peft_config=lora,
            processing_class=load_processor(task.base),
        )  # fmt: skip

    train_fitting(task, recorder, make)


def _exported(row: dict[str, Any]) -> dict[str, Any]:
    """A row as TRL reads it: turns of plain text, pictures beside them."""
    turns = [{"role": turn["role"], "content": turn["content"][-1]["text"]} for turn in row["messages"]]
    return {"prompt": turns[:-1], "completion": turns[-1:], "images": list(row["images"])}


def ours(
    task: Task, recorder: Any, stage: dict[str, Any] | None = None, run: dict[str, Any] | None = None
) -> None:
    """This package's trainer, portable settings; `stage` and `run` change others."""
    from dfkeval.models.light_import import light_transformers
    from dfktrain import TrainConfig

    light_transformers()
    from dfktrain.engines import load_base
    from dfktrain.training.run import train_on

    sizes = task.sizes
    portable = {"batch_size": task.micro, "accumulation": sizes.batch // task.micro}
    written = {
        "name": "s", "data": [str(task.rows)], "steps": ENDLESS, "optimizer": "adamw_torch_fused",
        "learning_rate": RATE, "scheduler": "constant", "save_steps": ENDLESS,
    } | (stage or portable)  # fmt: skip
    config = TrainConfig.model_validate({
        "model": {"name": task.base}, "engine": "transformers", "precision": "bf16" if task.cuda else "fp32",
        "adapter": {"kind": "lora", "rank": RANK, "alpha": ALPHA, "target_modules": "all-linear"},
        "stages": [written], **(run or {}),
    })  # fmt: skip
    recorder.facts["settings"] = {**(stage or portable), **(run or {})}
    recorder.install()
    out = task.work / f"runs/{recorder.name}"
    shutil.rmtree(out, ignore_errors=True)  # a run that was finished before would only be loaded
    recorder.facts["imported_s"] = time.time() - began()
    base, engine, precision = load_base(config)
    recorder.facts["loaded_s"] = time.time() - began()
    if task.cuda:
        import torch

        from dfkeval.models import fla_settings

        recorder.facts["tuned_here"] = fla_settings.keep_settings(
            fla_settings.settings_for(torch.cuda.get_device_capability(), fla_settings.HEAD)
        )
    done = train_on(base, config, out, engine=engine, precision=precision)
    recorder.facts["fused"] = done.stages[0].fused


def ours_budget(task: Task, recorder: Any) -> None:
    """This package's trainer with padded batches of a token budget, few log lines."""
    ours(task, recorder, {"log_steps": 10, **_budget(task)})


def ours_packed(task: Task, recorder: Any) -> None:
    """This package's trainer with packed batches of a token budget, few log lines."""
    ours(task, recorder, {"log_steps": 10, "packing": True, **_budget(task)})


FUSED = {"fused_layers": True}
GRAPHS = {"fused_layers": True, "cuda_graphs": True}


def ours_fused(task: Task, recorder: Any) -> None:
    """The same as `ours_budget` with fused layers."""
    ours(task, recorder, {"log_steps": 10, **_budget(task)}, FUSED)


def ours_fused_packed(task: Task, recorder: Any) -> None:
    """The same as `ours_packed` with fused layers."""
    ours(task, recorder, {"log_steps": 10, "packing": True, **_budget(task)}, FUSED)


def ours_plus(task: Task, recorder: Any) -> None:
    """The same as `ours_fused` with SFT-Plus."""
    plus = {"sft_plus": {"lambda": 0.1, "temperature": 1.0}}
    ours(task, recorder, {"log_steps": 10, **plus, **_budget(task)}, FUSED)


def ours_graphs(task: Task, recorder: Any) -> None:
    """The same as `ours_fused` with CUDA graphs."""
    ours(task, recorder, {"log_steps": 10, **_budget(task)}, GRAPHS)


def ours_graphs_plus(task: Task, recorder: Any) -> None:
    """The same as `ours_plus` with CUDA graphs."""
    plus = {"sft_plus": {"lambda": 0.1, "temperature": 1.0}}
    ours(task, recorder, {"log_steps": 10, **plus, **_budget(task)}, GRAPHS)


def _budget(task: Task) -> dict[str, int]:
    """As many tokens a step as the other contenders have on average."""
    parts = 1 if task.data == "text" else 2
    tokens = round(task.facts["means"]["tokens"] * task.sizes.batch / parts)
    return {"batch_tokens": max(tokens, max(task.facts["widths"])), "accumulation": parts}


QUIET = (("UNSLOTH_FORCE_VENDORED_FLA", "1"),)
CONTENDERS = {
    "A": Contender("transformers Trainer + PEFT", plain, fla=False),
    "B": Contender("A tuned: fla, scored head, length groups, workers", tuned),
    "C": Contender("Unsloth, its defaults", unsloth, no_unsloth, QUIET),
    "D": Contender(
        "Unsloth tuned: no checkpointing, no compile, workers",
        unsloth_tuned,
        no_unsloth,
        (*QUIET, ("UNSLOTH_COMPILE_DISABLE", "1")),
    ),
    "E": Contender("TRL SFTTrainer", trl, no_trl),
    "F": Contender("dfktrain, portable", ours),
    "G": Contender("dfktrain, token budget", ours_budget),
    "H": Contender("dfktrain, token budget, packed", ours_packed),
    "I": Contender("dfktrain, token budget, fused layers", ours_fused),
    "J": Contender("dfktrain, token budget, fused layers, packed", ours_fused_packed),
    "K": Contender("dfktrain, as I with SFT-Plus", ours_plus),
    "L": Contender("dfktrain, token budget, fused layers, CUDA graphs", ours_graphs),
    "M": Contender("dfktrain, as L with SFT-Plus", ours_graphs_plus),
}
