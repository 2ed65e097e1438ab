"""The configuration of rejection-sampling fine-tuning. Importing it loads no torch.

    sample:                                  # an evaluation: which rows are asked, of whom, how often
      data: data/train.jsonl
      backend: {kind: transformers, model: tiny, adapter: runs/sft/adapter}
      sampling: {repeats: 4, max_new_tokens: 256, temperature: 0.7}
    accept: {schema_valid: {}, label_match: {}}
    train:                                   # an ordinary training run; `accepted`: the round's rows
      model: {name: tiny}
      stages: [{name: rft, data: [accepted], epochs: 1, batch_size: 16, learning_rate: 2e-4}]

Guarantees:
    - Before the first answer is drawn it is checked that validators and their options exist, that answers are
      sampled and not greedy, that the accepted rows are trained on, and that a second round can load the
      adapter of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dfkdata.common.config import Config
from dfkeval.runs import config as configs
from dfkeval.runs.config import EvalConfig
from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import DataSource

ACCEPTED = "accepted"
"""The file name that stands for the accepted rows of the round."""

Validators = dict[str, dict[str, Any]]


class RftConfig(Config):
    """Rounds of rejection sampling, each followed by a training.

    Args:
        sample: An evaluation, whose rows are each answered `sampling.repeats` times. `sampling.thinking` opens
            a think block for the model to fill.
        accept: Validators of `dfkeval.validators` with their options. An answer that one of them rejects is
            not trained on.
        watch: Validators that are counted over the accepted answers and reject nothing.
        keep: Largest number of accepted answers of a row, in the order in which they were drawn; None keeps
            all. Equal answers count once.
        traces: "keep" trains the reasoning before the answer, "drop" trains the answer alone.
        rounds: Number of rounds; each samples from the newest adapter.
        start: Where training begins from the second round on: at the "newest" adapter or at the "base".
        train: A training run. The file name `accepted` in its stages stands for the accepted rows of the round.
    """

    sample: EvalConfig
    accept: Annotated[Validators, Field(min_length=1)]
    watch: Validators = Field(default_factory=dict)
    keep: Annotated[int, Field(ge=1)] | None = None
    traces: Literal["keep", "drop"] = "keep"
    rounds: Annotated[int, Field(ge=1)] = 1
    start: Literal["newest", "base"] = "newest"
    train: TrainConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.sample.sampling.temperature == 0:
            raise ValueError("sample.sampling: greedy answers are always the same; set temperature above 0")
        if not any(source.path == ACCEPTED for stage in self.train.stages for source in stage.sources):
            raise ValueError(
                f"train: no stage has {ACCEPTED!r} among its data, so nothing sampled would be trained on"
            )
        if self.rounds > 1 and "adapter" not in type(self.sample.backend).model_fields:
            raise ValueError(
                f"rounds: backend {self.sample.kind!r} takes no adapter, so a second round could not sample "
                "from the first one's; use transformers or vllm, or rounds: 1"
            )
        if self.rounds > 1 and self.train.adapter.kind == "full":
            raise ValueError("rounds: kind full makes no adapter to hand on; use lora, or rounds: 1")
        twice = sorted(set(self.accept) & set(self.watch))
        if twice:
            raise ValueError(f"{twice[0]} is in accept and in watch; write it once")
        return self

    def resolved(self, root: Path) -> Self:
        """Return a copy whose relative paths are below `root`; `accepted` stays as it is."""
        train = with_accepted(self.train, None).resolved(root)
        return self.model_copy(
            update={"sample": configs.rooted(self.sample, root), "train": with_accepted(train, ACCEPTED)}
        )


_MARK = "/\0accepted"


def with_accepted(train: TrainConfig, path: str | None) -> TrainConfig:
    """Return `train` with `path` instead of the accepted rows; None hides them from path resolution."""
    old, new = (ACCEPTED, _MARK) if path is None else (_MARK, path)
    stages = []
    for stage in train.stages:
        sources = [_swapped(source, {old, ACCEPTED}, new) for source in stage.sources]
        stages.append(stage.model_copy(update={"data": tuple(sources)}))
    return train.model_copy(update={"stages": tuple(stages)})


def _swapped(source: DataSource, old: set[str], new: str) -> DataSource:
    return source.model_copy(update={"path": new}) if source.path in old else source
