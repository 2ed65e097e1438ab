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

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from dfkdata.common.config import Config
from dfktrain.config.sections import ModelCard, MonitorConfig

Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup"]
Precision = Literal["auto", "bf16", "fp32"]
HUB = "hf://"
"""The beginning of an address on the Hub."""

PRESETS = ("all-linear", "language", "vision", "all", "servable")
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ModelConfig(Config):
    """The base model.

    Args:
        name: "tiny" (the built-in model), a folder, or a hub name.
        kind: "vlm" loads the vision-language class, also for text-only data; "llm" loads a causal language
            model and refuses a vision-language checkpoint.
        chat_template: Replaces the model's own template: the path of a Jinja file, "qwen3_5" (the one in this
            package), or a named template of the model.
        attention: The attention implementation.
    """

    name: str
    kind: Literal["vlm", "llm"] = "vlm"
    chat_template: str | None = None
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


class Switches(Config):
    """Target modules by part.

    Args:
        vision: Layers of the vision tower.
        language: Layers of the language model.
        attention: In both, the attention layers, gated delta rule included.
        mlp: In both, the MLP layers.
        merger: The merger between the two.
    """

    vision: bool = True
    language: bool = True
    attention: bool = True
    mlp: bool = True
    merger: bool = True


class AdapterConfig(Config):
    """What is trained.

    Args:
        kind: "lora", "qlora" (the base in 4 bit), "full" (every weight; the other keys must then be left out)
            or "peft" (any PEFT method).
        rank: Rank of the adapter.
        alpha: Scale of the adapter.
        dropout: Dropout before the adapter.
        bias: Which biases are trained.
        rslora: Scale by the square root of the rank.
        dora: Weight-decomposed adaptation.
        loftq: Start the adapter of a 4-bit base so that it makes up for the quantisation.
        method: With kind "peft", the dotted path of PEFT's configuration class.
        options: With kind "peft", the arguments of that class.
        target_modules: A word, a regular expression written "re:...", a list of endings of module names, or
            switches. "all-linear" and "all" are every linear layer but the head, vision tower and merger
            included; "language" those of the language model; "vision" those of the tower and the merger;
            "servable" those of the language model without the Gated DeltaNet projections, which servers
            silently leave out.
        warm_start: An adapter to go on from, a folder or hf://ORG/NAME[@REVISION]; its rank and modules must
            equal those written here.
    """

    kind: Literal["lora", "qlora", "full", "peft"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    rslora: bool = False
    dora: bool = False
    loftq: bool = False
    method: str | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    target_modules: Switches | str | tuple[str, ...] = "all-linear"
    warm_start: str | None = None

    @field_validator("target_modules")
    @classmethod
    def _known_or_regex(cls, value: Switches | str | tuple[str, ...]) -> Switches | str | tuple[str, ...]:
        if isinstance(value, str) and value not in PRESETS and not value.startswith("re:"):
            raise ValueError(
                f"{value!r} is not one of {', '.join(PRESETS)}; write a list of names, or re:PATTERN"
            )
        if not value:
            raise ValueError("names no module; write all-linear, or kind: full to train every weight")
        return value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        written = self.model_fields_set - {"kind"}
        if self.kind == "full" and written:
            raise ValueError(f"kind full trains every weight and has no {', '.join(sorted(written))}")
        if (self.kind == "peft") != (self.method is not None):
            raise ValueError("kind: peft and method: package.ConfigClass belong together")
        lost = written & {"rank", "alpha", "dropout", "bias", "rslora", "dora", "loftq"}
        if self.kind == "peft" and lost:
            raise ValueError(f"kind peft takes its settings from options, not from {', '.join(sorted(lost))}")
        if self.kind != "peft" and self.options:
            raise ValueError("options belong to kind: peft")
        if self.loftq and self.kind != "qlora":
            raise ValueError("loftq makes up for a 4-bit base; it needs kind: qlora")
        return self


class Resample(Config):
    """How often rows of each gold value come in an epoch.

    Args:
        field: Field of meta.gold.
        weights: Value -> weight; 0.5 takes half of its rows, 2 takes each twice. Values that are not listed
            keep weight 1. "balanced" brings all values to the same number of rows.
    """

    field: str
    weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["balanced"] = "balanced"


class LabelWeights(Config):
    """How much the scored tokens of a row count in the loss.

    The weights are scaled once for the stage so that their mean over its scored tokens is 1. The learning rate
    keeps its meaning, and a step whose rows all have one value is weighted too (in a weighted mean within the
    step the weights would cancel).

    Args:
        field: Field of meta.gold.
        weights: Value -> weight. Values that are not listed have weight 1. "balanced" is inverse to the number
            of rows of a value.
    """

    field: str
    weights: dict[str, Annotated[float, Field(gt=0)]] | Literal["balanced"] = "balanced"


class DataSource(Config):
    """One data file.

    Args:
        path: A JSONL file of the messages layout.
        weight: How often its rows come in an epoch; 0.5 takes half of them, 2 takes each twice.
    """

    path: str
    weight: Annotated[float, Field(gt=0)] = 1.0


class SftPlus(Config):
    """Preserve general skills: a scored token's loss is (1 - lambda) * CE + lambda * KL(base || student).

    Args:
        share: lambda (`lambda:` in YAML). A larger one keeps more of what the base can do and learns the new
            data less; 0 is plain training.
        temperature: Temperature of the KL. A higher one reduces the base's influence.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    share: Annotated[float, Field(ge=0, lt=1, alias="lambda")]
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Stage(Config):
    """One pass of the adapter over some data, with an optimiser and a schedule of its own.

    Args:
        name: Name of the stage and of its folder.
        data: JSONL files of the messages layout.
        validation: JSONL files on which the validation loss is computed.
        resample: Repeats or leaves out rows by their gold value.
        label_weights: Weights rows in the loss by their gold value; excludes `resample`.
        modality: "any", or only the rows that are "text" or "image". A stage with text only does not train the
            vision tower.
        epochs: Passes over the data; excludes `steps`. Without either it is one.
        steps: Optimiser steps.
        batch_size: Samples of a micro-batch on a device.
        batch_tokens: Largest number of tokens of a micro-batch; excludes `batch_size`.
        packing: Whether the samples of a micro-batch are packed into one row without padding. If the model or
            its kernels cannot keep them apart exactly, batches are padded and run.json says why.
        accumulation: Micro-batches of a step.
        learning_rate: The highest learning rate.
        scheduler: Its schedule.
        warmup_ratio: Part of the steps in which it rises; excludes `warmup_steps`.
        warmup_steps: Steps in which it rises.
        optimizer: The optimiser.
        weight_decay: Its weight decay.
        beta2: Second beta of adamw.
        clip: Largest norm of the gradient; 0 turns clipping off.
        max_length: Largest number of tokens of a row, image tokens included.
        on_too_long: "refuse" stops before training, "drop" leaves longer rows out and counts them,
            "truncate_prompt" cuts the longest plain text of the prompt, never an image or an answer.
        max_pixels: Largest number of pixels of an image; None is the processor's own. `dfk.json` records it for
            inference.
        turns: "last" scores the last answer; "all" makes a sample of every assistant turn, each with the prompt
            that inference would give it.
        group_by_length: Whether samples of similar length share a batch.
        sft_plus: Stay close to the base, see `SftPlus`.
        eval_steps: Steps between validations; None validates once an epoch.
        save_steps: Steps between checkpoints; None saves once an epoch.
        log_steps: Steps between log lines.
        save_total_limit: Number of checkpoints that are kept.
        best: Whether the weights with the lowest validation loss are kept.
        patience: Validations without a gain before the stage stops.
        watch: Rows that the model answers meanwhile; None takes those of the run.
    """

    name: Name
    data: Annotated[tuple[str | DataSource, ...], Field(min_length=1)]
    validation: tuple[str, ...] = ()
    resample: Resample | None = None
    label_weights: LabelWeights | None = None
    modality: Literal["any", "text", "image"] = "any"
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    packing: bool = False
    accumulation: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    scheduler: Scheduler = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    optimizer: Optimizer = "adamw_torch"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    clip: Annotated[float, Field(ge=0)] = 1.0
    max_length: Annotated[int, Field(ge=1)] = 2048
    on_too_long: Literal["refuse", "drop", "truncate_prompt"] = "refuse"
    max_pixels: Annotated[int, Field(ge=1)] | None = None
    turns: Literal["last", "all"] = "last"
    group_by_length: bool = True
    sft_plus: SftPlus | None = None
    eval_steps: Annotated[int, Field(ge=1)] | None = None
    save_steps: Annotated[int, Field(ge=1)] | None = None
    log_steps: Annotated[int, Field(ge=1)] = 1
    save_total_limit: Annotated[int, Field(ge=1)] = 2
    best: bool = False
    patience: Annotated[int, Field(ge=1)] | None = None
    watch: MonitorConfig | None = None

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Return `data` with every entry as a `DataSource`."""
        return tuple(item if isinstance(item, DataSource) else DataSource(path=item) for item in self.data)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both set; write one of them")
        if self.batch_tokens is not None and "batch_size" in self.model_fields_set:
            raise ValueError("batch_size and batch_tokens are both set; write one of them")
        if self.resample is not None and self.label_weights is not None:
            raise ValueError("resample and label_weights are both set; write one of them")
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise ValueError("warmup_ratio and warmup_steps are both set; write one of them")
        if (self.best or self.patience or self.eval_steps) and not self.validation:
            raise ValueError("best, patience and eval_steps need validation: [FILE.jsonl]")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        if "beta2" in self.model_fields_set and "adamw" not in self.optimizer:
            raise ValueError(f"beta2 belongs to adamw; optimizer {self.optimizer} has none, leave it out")
        if self.batch_tokens is not None and "group_by_length" in self.model_fields_set:
            raise ValueError("batch_tokens forms its own batches; leave group_by_length out")
        if self.best and self.save_steps and self.save_steps % (self.eval_steps or self.save_steps + 1):
            wanted = (
                f"a multiple of eval_steps {self.eval_steps}" if self.eval_steps else "eval_steps as well"
            )
            raise ValueError(
                f"best needs a checkpoint wherever it evaluates: save_steps {self.save_steps} needs "
                f"{wanted}; or leave save_steps out, it then follows the evaluation"
            )
        return self


class Evaluate(Config):
    """The evaluation that a run ends with.

    Args:
        config: An evaluation preset (`dfkeval init` lists them) or the path of an evaluation's YAML file. Its
            model and adapter are replaced by the run's.
        data: The rows, instead of the file's.
        before: Whether the base is evaluated too and compared.
        set: Further changes of the evaluation, such as "metrics=[validity]".
    """

    config: str
    data: str | None = None
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
        output: Folder of the run, unless the command names one.
        run_name: Name of the run in trackers.
        trackers: Services that get the log lines too. TensorBoard's files lie in stages/NAME/tensorboard.
        evaluate: The evaluation that the run ends with.
        watch: Rows that the model answers while it is trained.
        card: What the README.md beside the weights says.
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
    output: str | None = None
    run_name: str | None = None
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    evaluate: Evaluate | None = None
    watch: MonitorConfig | None = None
    card: ModelCard = ModelCard()
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
        stages = tuple(_absolute(stage, root) for stage in self.stages)
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
        changed: dict[str, object] = {"stages": stages, "model": model, "adapter": adapter, "output": out}
        if self.evaluate is not None:
            changed["evaluate"] = _rooted(self.evaluate, root)
        if self.watch is not None:
            changed["watch"] = self.watch.resolved(root)
        return self.model_copy(update=changed)


def _rooted(evaluate: Evaluate, root: Path) -> Evaluate:
    # a name without a suffix stays the name of a preset
    config = str(root / evaluate.config) if Path(evaluate.config).suffix else evaluate.config
    data = str(root / evaluate.data) if evaluate.data else None
    return evaluate.model_copy(update={"config": config, "data": data})


def _absolute(stage: Stage, root: Path) -> Stage:
    data = tuple(source.model_copy(update={"path": str(root / source.path)}) for source in stage.sources)
    validation = tuple(str(root / path) for path in stage.validation)
    watch = stage.watch.resolved(root) if stage.watch is not None else None
    return stage.model_copy(update={"data": data, "validation": validation, "watch": watch})
