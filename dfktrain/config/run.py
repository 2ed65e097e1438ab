"""The configuration of a training run. Importing it loads no torch.

A run is one model, one adapter and a list of stages that the adapter goes through in order.

Guarantees:
    - Unknown keys raise an error with a suggestion (see `dfkdata.common.config`), and so do keys that exclude
      each other.
    - Keys that the selected engine does not support raise `ConfigError`; no key is silently ignored.
    - After `resolved`, relative paths are relative to the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dfkdata.common.config import Config, NonEmpty
from dfkdata.pages.words import Language
from dfktrain.config.model import HUB, AdapterConfig, ModelConfig
from dfktrain.config.sections import ModelCard, MonitorConfig
from dfktrain.config.stage import Stage

Precision = Literal["auto", "bf16", "fp32"]


class Evaluate(Config):
    """The evaluation that a run ends with.

    Args:
        config: An evaluation preset (`dfkeval init` lists them) or the path of an evaluation's YAML file. Its
            model and adapter are replaced by the run's.
        data: The rows, instead of the file's.
        before: Whether the base is evaluated too and compared.
        set: Further changes of the evaluation, such as "metrics=[validity]".
    """

    config: NonEmpty
    data: NonEmpty | None = None
    before: bool = True
    set: tuple[str, ...] = ()


class TrainConfig(Config):
    """One training run: a model, an adapter, and the stages that the adapter goes through.

    Args:
        model: The base model.
        adapter: What is trained.
        stages: The stages in order, at least one.
        engine: "auto" takes Unsloth if a tested version and a GPU are there, else transformers.
        precision: "auto" is bf16 if the device computes it natively, else fp32. fp16 does not exist, because
            the gradients of Qwen3.5 become NaN in it.
        checkpointing: Who recomputes activations in the backward pass: "none", "torch" or "unsloth".
        fused_layers: Whether norms, SwiGLU, the causal convolution, adapter products, the cross entropy and the
            attention over pictures of a hybrid model are computed by fused kernels on a GPU. What cannot be
            fused, or differs from the library's layer, stays as it is; run.json says why. None fuses what it can
            with engine transformers on a GPU.
        cuda_graphs: Whether the layers of the language model are replayed from CUDA graphs on a GPU: a shape of batches
            that comes a second time is recorded and compared with the layers. Padded batches are then as wide as a
            multiple of 64. What cannot be recorded runs as it is; run.json says why. None records stages of
            text with engine transformers and fused layers in one process on a GPU of at least 64 GiB: a shape keeps
            memory of its own.
        workers: Processes that make batches ahead of the steps: open and resize pictures, pad, pack. None takes up
            to 8 for a stage with pictures on a GPU, 2 for text, and none without a GPU. The order of the batches
            does not depend on it.
        output: Folder of the run, unless the command names one.
        run_name: Name of the run in trackers.
        trackers: Services that get the log lines too. TensorBoard's files lie in stages/NAME/tensorboard.
        evaluate: The evaluation that the run ends with.
        watch: Rows that the model answers while it is trained.
        card: What the README.md beside the weights says.
        plugins: Modules outside this repository that rows may name, such as a schema in a row's `meta`.
        media_roots: Folders in which rows may name media besides their own (`dfkdata.common.media_roots`); they are
            not kept in the run.
        on_overlap: "refuse" stops before training if a file or an id is trained on and held out, "warn" says so and
            goes on.
        lang: Language of the words on training.html, "en" or "id".
        seed: Decides the adapter's start, the order of rows and dropout.

    Raises:
        ConfigError: `load_config` found an unknown key, a wrong value, or two keys that exclude each other.

    Example:
        >>> from dfktrain import TrainConfig
        >>> stage = {"name": "sft", "data": ["rows.jsonl"], "epochs": 2}
        >>> config = TrainConfig.model_validate({"model": {"name": "tiny"}, "stages": [stage]})
        >>> config.adapter.rank, config.stages[0].batch_size, config.seed
        (16, 8, 42)
    """

    model: ModelConfig
    adapter: AdapterConfig = AdapterConfig()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    engine: Literal["auto", "transformers", "unsloth"] = "auto"
    precision: Precision = "auto"
    checkpointing: Literal["none", "torch", "unsloth"] = "none"
    fused_layers: bool | None = None
    cuda_graphs: bool | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    output: NonEmpty | None = None
    run_name: str | None = None
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    evaluate: Evaluate | None = None
    watch: MonitorConfig | None = None
    card: ModelCard = ModelCard()
    plugins: tuple[str, ...] = ()
    media_roots: Annotated[tuple[NonEmpty, ...], Field(exclude=True)] = ()
    on_overlap: Literal["refuse", "warn"] = "refuse"
    lang: Language = "en"
    seed: int = 42

    @field_validator("precision", mode="before")
    @classmethod
    def _no_half(cls, value: object) -> object:
        if value in ("fp16", "float16", "half"):
            raise ValueError(
                "fp16 gives NaN gradients in Qwen3.5 models; use bf16, or fp32 where bf16 is missing"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are called {twice[0]!r}; each saves under its own name")
        if self.adapter.bias != "none" and any(stage.sft_plus for stage in self.stages):
            raise ValueError(
                f"sft_plus takes the base for its teacher, and biases trained by adapter.bias: "
                f"{self.adapter.bias} stay in it when the adapter is off; write bias: none"
            )
        if self.checkpointing == "unsloth" and self.engine == "transformers":
            raise ValueError("checkpointing: unsloth needs engine: unsloth; write checkpointing: torch")
        return self

    def monitor_of(self, stage: Stage) -> MonitorConfig | None:
        """Return the rows that the model answers during `stage`: the stage's own, or those of the run."""
        return stage.watch or self.watch

    @model_validator(mode="after")
    def _supports_evaluation(self) -> Self:
        if self.model.kind == "llm" and any(self.monitor_of(stage) for stage in self.stages):
            raise ValueError("watch asks vision-language models; leave it out for model.kind llm")
        if self.evaluate is not None and self.model.chat_template is not None:
            raise ValueError(
                "evaluate asks the base with its own template, not with model.chat_template; "
                "put the template into the model's folder"
            )
        if self.evaluate is not None and self.model.kind == "llm":
            raise ValueError(
                "evaluate loads vision-language models; leave it out for model.kind llm, serve the model and "
                "ask it with dfkeval run (backend openai)"
            )
        return self

    def resolved(self, root: Path) -> Self:
        """Return a copy whose relative paths are below `root`.

        A model name that is a folder below `root` becomes that folder."""
        stages = tuple(stage.resolved(root) for stage in self.stages)
        folder = root / self.model.name
        template = self.model.chat_template
        by_path = template is not None and (template.endswith(".jinja") or (root / template).is_file())
        model = self.model.model_copy(
            update={
                "name": str(folder) if folder.is_dir() else self.model.name,
                "chat_template": str(root / template) if template and by_path else template,
            }
        )
        warm = self.adapter.warm_start
        if warm and not warm.startswith(HUB):
            warm = str(root / warm)
        adapter = self.adapter.model_copy(update={"warm_start": warm}) if warm else self.adapter
        out = str(root / self.output) if self.output is not None else None
        roots = tuple(str(root / folder) for folder in self.media_roots)
        changed: dict[str, object] = {
            "media_roots": roots,
            "stages": stages,
            "model": model,
            "adapter": adapter,
            "output": out,
        }
        if self.evaluate is not None:
            changed["evaluate"] = _rooted(self.evaluate, root)
        if self.watch is not None:
            changed["watch"] = self.watch.resolved(root)
        return self.model_copy(update=changed)


def _rooted(evaluate: Evaluate, root: Path) -> Evaluate:
    # a name without a suffix stays the name of a preset
    config = str(root / evaluate.config) if Path(evaluate.config).suffix else evaluate.config
    data = str(root / evaluate.data) if evaluate.data is not None else None
    return evaluate.model_copy(update={"config": config, "data": data})
