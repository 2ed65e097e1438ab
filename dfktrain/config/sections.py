"""Sections of a training configuration that change no weight: monitoring and the model card.

Nothing here is part of a stage's fingerprint, so a section that is added to an interrupted run does not start
it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from dfkdata.common.config import Config, NonEmpty
from dfkeval.types import Sampling


class MonitorConfig(Config):
    """Rows that the model in training answers now and then (`watch:` in YAML), and how they are scored.

    Args:
        data: A JSONL file of the messages layout, with gold.
        limit: Number of its rows, drawn once with the run's seed.
        metrics: Members of `dfkeval.metrics`.
        every_steps: Optimiser steps between two evaluations. The start and the last step are evaluated too.
        schema_name: The output schema (`schema:` in YAML); None takes the one that the rows name.
        sampling: Greedy by default, so that two evaluations differ by the weights alone.
        batch_tokens: Largest number of prompt and answer tokens of a batch.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    data: NonEmpty
    limit: Annotated[int, Field(ge=1)] = 32
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("validity",)
    every_steps: Annotated[int, Field(ge=1)] = 100
    schema_name: Annotated[str | None, Field(alias="schema")] = None
    sampling: Sampling = Sampling(max_new_tokens=256)
    batch_tokens: Annotated[int, Field(ge=1)] = 8_192

    def resolved(self, root: Path) -> Self:
        """Return a copy whose data is below `root`."""
        return self.model_copy(update={"data": str(root / self.data)})


class ModelCard(Config):
    """What the model card (README.md beside the weights) says that a run cannot know.

    The card calls unknown what is left out.

    Args:
        title: Title of the card; None is the name of the run's folder.
        license: An identifier of the Hub, such as apache-2.0.
        language: Languages, for the Hub's header.
        datasets: Names on the Hub, for its header.
        tags: Tags, for the Hub's header.
        base_model: The base's name on the Hub, if the run used a folder.
        summary: Markdown text.
        uses: Markdown text.
        out_of_scope: Markdown text.
        limitations: Markdown text.
        developed_by: Person or organisation.
        repository: Address of the code.
    """

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
