"""Sections of a training run's configuration that change no weight: what is watched, what the card says.

Promises: loads no torch; nothing here enters a stage's fingerprint, so adding a section to a run that is
under way does not start it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from dfkdata.common.config import Config
from dfkeval.types import Sampling


class MonitorConfig(Config):
    """Rows that the model in training answers now and then, and how its answers are scored.

    data: JSONL of the messages layout, with gold. limit: so many of its rows, drawn once by the run's seed.
    metrics: members of dfkeval.metrics. every_steps: in optimiser steps; the start and the last step are
    watched too. schema: None takes the one that the rows name. sampling: greedy by default, so that two
    points differ by the weights alone. batch_tokens: prompt and answer tokens of one batch."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    data: str
    limit: Annotated[int, Field(ge=1)] = 32
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("validity",)
    every_steps: Annotated[int, Field(ge=1)] = 100
    schema_name: Annotated[str | None, Field(alias="schema")] = None
    sampling: Sampling = Sampling(max_new_tokens=256)
    batch_tokens: Annotated[int, Field(ge=1)] = 8_192

    def resolved(self, root: Path) -> Self:
        """A copy whose data lies below `root`."""
        return self.model_copy(update={"data": str(root / self.data)})


class ModelCard(Config):
    """What the card (README.md beside the weights) says that a run cannot know.

    title: default: the name of the run's folder. license: an identifier of the Hub, such as apache-2.0.
    language, datasets, tags: for the Hub's header; datasets are names on the Hub. base_model: the base's name
    on the Hub, where the run used a folder. summary, uses, out_of_scope, limitations: Markdown text.
    developed_by, repository: who, and where the code lies. What is left out is said to be unknown."""

    title: str | None = None
    license: str | None = None
    language: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    base_model: str | None = None
    summary: str | None = None
    uses: str | None = None
    out_of_scope: str | None = None
    limitations: str | None = None
    developed_by: str | None = None
    repository: str | None = None
