"""The roles that fields of an answer play, so that nobody outside a schema needs to know field names.

    class Answer(BaseAnswer):
        label: Annotated[Literal["netral", "fitnah"], Label(SET)]
        analisis: Annotated[str, Prose()]

Metrics, checks and reports ask `roles(Answer)` which fields are labels, prose, grounded lists or inferred
values."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from dfkdata.schemas._labels import LabelSet


class BaseAnswer(BaseModel):
    """Base class of every answer: immutable, strictly typed, and closed to unknown keys unless a schema opens
    itself."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


@dataclass(frozen=True)
class Label:
    """Mark a class out of a closed set; `labels` says which spellings mean which class."""

    labels: LabelSet


@dataclass(frozen=True)
class Prose:
    """Mark free text, which ROUGE and BERTScore compare."""


@dataclass(frozen=True)
class Grounded:
    """Mark a list whose every entry the source text must support; it is compared as a set."""


@dataclass(frozen=True)
class Choice:
    """Mark a closed enumeration, which is never grounded and compared by accuracy."""


@dataclass(frozen=True)
class Inferred:
    """Mark a value that may be inferred from the source, and so is not grounded."""


@dataclass(frozen=True)
class Derived:
    """Mark a value that only a reader's judgement gives (mood), and so is not grounded."""


Role = Label | Prose | Grounded | Choice | Inferred | Derived


def roles(answer: type[BaseModel]) -> dict[str, Role]:
    """Return the role of each field that has one, by field name and in field order."""
    marks = {
        name: [item for item in field.metadata if isinstance(item, Role)]
        for name, field in answer.model_fields.items()
    }
    return {name: items[0] for name, items in marks.items() if items}
