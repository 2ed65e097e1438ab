"""The configuration of one stage: its data, its optimiser, and what is added to the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from dfkdata.common.config import Config, NonEmpty
from dfktrain.config.sections import MonitorConfig

Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup"]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _named_values(weights: Any) -> Any:
    """Return weights whose values are texts: class indexes are written without quotes, and other words need them."""
    if not isinstance(weights, dict):
        return weights
    for value in weights:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"YAML reads one of the values as {value!r}; quote it")
    return {str(value): weight for value, weight in weights.items()}


class Resample(Config):
    """How often rows of each gold value come in an epoch.

    Args:
        field: Field of meta.gold.
        weights: Value -> weight; 0.5 takes half of its rows, 2 takes each twice. Values that are not listed
            keep weight 1. "balanced" brings all values to the same number of rows.
    """

    field: str
    weights: Annotated[
        dict[str, Annotated[float, Field(ge=0)]] | Literal["balanced"], BeforeValidator(_named_values)
    ] = "balanced"


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
    weights: Annotated[
        dict[str, Annotated[float, Field(gt=0)]] | Literal["balanced"], BeforeValidator(_named_values)
    ] = "balanced"


class DataSource(Config):
    """One data file.

    Args:
        path: A JSONL file of the messages layout.
        weight: How often its rows come in an epoch; 0.5 takes half of them, 2 takes each twice.
    """

    path: NonEmpty
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
    data: Annotated[tuple[NonEmpty | DataSource, ...], Field(min_length=1)]
    validation: tuple[NonEmpty, ...] = ()
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
            needed = (
                f"a multiple of eval_steps {self.eval_steps}" if self.eval_steps else "eval_steps as well"
            )
            raise ValueError(
                f"best needs a checkpoint wherever it evaluates: save_steps {self.save_steps} needs "
                f"{needed}; or leave save_steps out, it then follows the evaluation"
            )
        return self

    def resolved(self, root: Path) -> Self:
        """Return a copy whose relative paths are below `root`."""
        data = tuple(source.model_copy(update={"path": str(root / source.path)}) for source in self.sources)
        validation = tuple(str(root / path) for path in self.validation)
        watch = self.watch.resolved(root) if self.watch is not None else None
        return self.model_copy(update={"data": data, "validation": validation, "watch": watch})
