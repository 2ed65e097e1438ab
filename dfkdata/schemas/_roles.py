"""Roles that a field of an answer plays, so that nobody outside a schema needs to know field names.

    class Answer(BaseAnswer):
        label: Annotated[Literal["netral", "fitnah"], Label(SET)]
        analisis: Annotated[str, Prose()]

Metrics, checks and reports ask `roles(Answer)` which fields are labels, prose, grounded lists or inferred
slots."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from dfkdata.schemas._labels import LabelSet


class BaseAnswer(BaseModel):
    """Base of every answer: immutable, strictly typed, refuses unknown keys unless a schema opens itself."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


@dataclass(frozen=True)
class Label:
    """A class out of a closed set; `labels` says which spellings mean which class."""

    labels: LabelSet


@dataclass(frozen=True)
class Prose:
    """Free text, compared by ROUGE and BERTScore."""


@dataclass(frozen=True)
class Grounded:
    """A list whose every entry must be supported by the source text; compared as a set."""


@dataclass(frozen=True)
class Choice:
    """A closed enumeration; never grounded, compared by accuracy."""


@dataclass(frozen=True)
class Inferred:
    """A value that may be inferred from the source; not grounded."""


@dataclass(frozen=True)
class Derived:
    """A value that only a reader's judgement gives (mood); not grounded."""


Role = Label | Prose | Grounded | Choice | Inferred | Derived


def roles(answer: type[BaseModel]) -> dict[str, Role]:
    """Field name -> role, in field order; fields without a role are left out."""
    found = {
        name: [item for item in field.metadata if isinstance(item, Role)]
        for name, field in answer.model_fields.items()
    }
    return {name: items[0] for name, items in found.items() if items}
