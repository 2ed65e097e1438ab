"""Parts of a prompt, forms of an answer, and the variants that pair them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A fixed text part of a prompt."""

    text: str


@dataclass(frozen=True)
class Lines:
    """A text part of `Name: value` lines, from (printed name, field) pairs; an empty field gives none."""

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Value:
    """The text of a field as it is, or `otherwise` if the field is empty."""

    field: str
    otherwise: str


@dataclass(frozen=True)
class Images:
    """One placeholder for each image of the record."""


Part = Text | Lines | Value | Images


@dataclass(frozen=True)
class Prompt:
    """The turns that ask.

    Args:
        parts: The parts of the user turn, in order.
        system: The system turn; None for none.
    """

    parts: tuple[Part, ...]
    system: str | None = None


@dataclass(frozen=True)
class TextForm:
    """An answer written as marked text: each marker followed by the value of its field.

    All but the last value stand on one line, unless `end` is set; the last runs to the end of the text, less
    `end`.

    Args:
        parts: (marker, field) pairs, in order.
        end: What closes the text.
        printed: (label, how it is written) pairs, for labels with another spelling than the canonical one.
    """

    parts: tuple[tuple[str, str], ...]
    end: str = ""
    printed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class JsonForm:
    """An answer written as JSON text: the value of `field`, or the whole object if `field` is None."""

    field: str | None = None


@dataclass(frozen=True)
class ToolForm:
    """An answer written as one call of the tool `name`, whose parameters are the answer's JSON Schema."""

    name: str
    description: str


Form = TextForm | ToolForm | JsonForm


@dataclass(frozen=True)
class Variant:
    """A prompt with the form of its answer."""

    prompt: Prompt
    form: Form
