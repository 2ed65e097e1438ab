"""What rejection-sampling fine-tuning is asked to do, as frozen configuration. Loads no torch.

    sample:                                  # an evaluation: which rows are asked, of whom, how often
      data: data/train.jsonl
      backend: {kind: transformers, model: tiny, adapter: runs/sft/adapter}
      sampling: {repeats: 4, max_new_tokens: 256, temperature: 0.7}
    accept: {schema_valid: {}, label_match: {}}
    train:                                   # an ordinary training run; `accepted`: the round's rows
      model: {name: tiny}
      stages: [{name: rft, data: [accepted], epochs: 1, batch_size: 16, learning_rate: 2e-4}]

Promises: everything is checked before the first question is asked: validators and their options, that answers
are drawn and not greedy, that the accepted rows are trained on, and that a second round can load the first
one's adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dfkdata.common.config import Config
from dfkeval.runs import config as configs
from dfkeval.runs.config import EvalConfig
from dfktrain.config.run import DataSource, TrainConfig

ACCEPTED = "accepted"
"""The data file of a stage that stands for the rows accepted in the round."""

Wanted = dict[str, dict[str, Any]]


class RftConfig(Config):
    """sample: an evaluation; its rows are asked `sampling.repeats` times each. sampling.thinking opens a
    think block for the model to fill.

    accept: validators of `dfkeval.validators` with their options; an answer that one of them rejects is not
    trained on. watch: validators that are counted over the accepted answers and reject nothing.
    keep: at most so many answers of a row, in the order they were drawn; None for all. The same answer is
    kept once. traces: what becomes of the reasoning: "keep" teaches it before the answer, "drop" teaches the
    answer alone. rounds: each samples from the newest adapter, trains, and hands its adapter on.
    start: where training begins in the second round and after: at the "newest" adapter, or at the "base"
    again. train: a training run; the file name `accepted` in its stages stands for the rows of the round."""

    sample: EvalConfig
    accept: Annotated[Wanted, Field(min_length=1)]
    watch: Wanted = Field(default_factory=dict)
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
        """A copy whose relative paths are below `root`; `accepted` stays a word."""
        train = with_accepted(self.train, None).resolved(root)
        return self.model_copy(
            update={"sample": configs.rooted(self.sample, root), "train": with_accepted(train, ACCEPTED)}
        )


_MARK = "/\0accepted"


def with_accepted(train: TrainConfig, path: str | None) -> TrainConfig:
    """`train` with `path` in the place of the accepted rows; None hides them from path resolution."""
    old, new = (ACCEPTED, _MARK) if path is None else (_MARK, path)
    stages = []
    for stage in train.stages:
        sources = [_swapped(source, {old, ACCEPTED}, new) for source in stage.sources]
        stages.append(stage.model_copy(update={"data": tuple(sources)}))
    return train.model_copy(update={"stages": tuple(stages)})


def _swapped(source: DataSource, old: set[str], new: str) -> DataSource:
    return source.model_copy(update={"path": new}) if source.path in old else source
