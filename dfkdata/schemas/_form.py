"""Parts of a prompt, forms of an answer, and the variants that pair them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A fixed text part."""

    text: str


@dataclass(frozen=True)
class Lines:
    """One text part of `Name: value` lines, (printed name, field) pairs; an empty field gives no line."""

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Value:
    """The field's text as it is; `otherwise` is asked when the field is empty."""

    field: str
    otherwise: str


@dataclass(frozen=True)
class Images:
    """One placeholder for each image of the record."""


Part = Text | Lines | Value | Images


@dataclass(frozen=True)
class Prompt:
    """`system`: the system turn, None for none. `parts`: the user turn, in order."""

    parts: tuple[Part, ...]
    system: str | None = None


@dataclass(frozen=True)
class TextForm:
    """An answer written as marked text: `parts` are (marker, field); the answer is each marker followed by
    its value.

    All but the last value stand on one line, unless `end` is set; the last runs to the end of the text, less
    `end`. printed: (value, how it is written) where a label is printed in another spelling than its canonical
    one."""

    parts: tuple[tuple[str, str], ...]
    end: str = ""
    printed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class JsonForm:
    """An answer written as JSON text: the value of `field`, or the whole object where `field` is None."""

    field: str | None = None


@dataclass(frozen=True)
class ToolForm:
    """An answer written as one call of the tool `name`, whose parameters are the answer's JSON Schema."""

    name: str
    description: str


Form = TextForm | ToolForm | JsonForm


@dataclass(frozen=True)
class Variant:
    """One way of asking and answering."""

    prompt: Prompt
    form: Form
