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
    """Base class of every answer: immutable, strictly typed, and closed to unknown keys unless a schema opens itself.

    Example:
        >>> from dfkdata.schemas import BaseAnswer
        >>> class Answer(BaseAnswer):
        ...     tone: str
        >>> Answer(tone="calm").model_dump()
        {'tone': 'calm'}
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


@dataclass(frozen=True)
class Label:
    """Mark a class out of a closed set.

    Args:
        labels: Which spellings mean which class.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Label, LabelSet
        >>> class Answer(BaseAnswer):
        ...     tone: Annotated[Literal["calm", "angry"], Label(LabelSet(("calm", "angry")))]
        >>> type(Answer.model_fields["tone"].metadata[0]).__name__
        'Label'
    """

    labels: LabelSet


@dataclass(frozen=True)
class Prose:
    """Mark free text, which ROUGE and BERTScore compare.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Prose
        >>> class Answer(BaseAnswer):
        ...     reason: Annotated[str, Prose()]
        >>> type(Answer.model_fields["reason"].metadata[0]).__name__
        'Prose'
    """


@dataclass(frozen=True)
class Grounded:
    """Mark a list whose every entry the source text must support; it is compared as a set.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Grounded
        >>> class Answer(BaseAnswer):
        ...     objects: Annotated[list[str], Grounded()]
        >>> type(Answer.model_fields["objects"].metadata[0]).__name__
        'Grounded'
    """


@dataclass(frozen=True)
class Choice:
    """Mark a closed enumeration, which is never grounded and compared by accuracy.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Choice
        >>> class Answer(BaseAnswer):
        ...     setting: Annotated[Literal["indoor", "outdoor"], Choice()]
        >>> type(Answer.model_fields["setting"].metadata[0]).__name__
        'Choice'
    """


@dataclass(frozen=True)
class Inferred:
    """Mark a value that may be inferred from the source, and so is not grounded.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Inferred
        >>> class Answer(BaseAnswer):
        ...     style: Annotated[str | None, Inferred()]
        >>> type(Answer.model_fields["style"].metadata[0]).__name__
        'Inferred'
    """


@dataclass(frozen=True)
class Derived:
    """Mark a value that only a reader's judgement gives, such as mood, and so is not grounded.

    Example:
        >>> from typing import Annotated, Literal
        >>> from dfkdata.schemas import BaseAnswer, Derived
        >>> class Answer(BaseAnswer):
        ...     mood: Annotated[str | None, Derived()]
        >>> type(Answer.model_fields["mood"].metadata[0]).__name__
        'Derived'
    """


Role = Label | Prose | Grounded | Choice | Inferred | Derived


def roles(answer: type[BaseModel]) -> dict[str, Role]:
    """Return the role of each field that has one, by field name and in field order."""
    marks = {
        name: [item for item in field.metadata if isinstance(item, Role)]
        for name, field in answer.model_fields.items()
    }
    return {name: items[0] for name, items in marks.items() if items}
