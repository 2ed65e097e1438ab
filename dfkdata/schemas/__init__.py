"""FAMILY: one output schema a file.

A member says what the model must answer and how it is asked:

    class Answer(Frozen)                   the validated dict; fields carry roles (see `dfkdata.schemas._roles`)
    VARIANTS: dict[str, Variant]           named pairs of prompt and answer form; the first is the default

Prompt text, tool definition, grammar, training target and metrics all derive from these two names.
The order of prompt parts belongs to the schema, because published adapters were trained on exactly that
order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.schemas._json_schema import json_schema, tool
from dfkdata.schemas._roles import Role, roles


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


@dataclass(frozen=True)
class Schema:
    """A loaded family member in one of its variants."""

    name: str
    variant: str
    answer: type[BaseModel]
    prompt: Prompt
    form: Form

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Field -> role, in field order."""
        return roles(self.answer)

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The answer's JSON Schema."""
        return json_schema(self.answer)

    @cached_property
    def tools(self) -> list[dict[str, Any]] | None:
        """The tool definitions that the model is shown; None for a text form."""
        if isinstance(self.form, ToolForm):
            return [tool(self.form.name, self.form.description, self.answer)]
        return None


FAMILY = "dfkdata.schemas"


def load(schema: str | ModuleType | type[BaseModel] | Schema, variant: str | None = None) -> Schema:
    """A schema by name, module, answer class or as it is; `variant` picks one of its VARIANTS (default: the
    first).

    Raises `ConfigError` for an unknown name or variant, naming the choices."""
    if isinstance(schema, Schema):
        return schema
    module = _module(schema)
    variants: dict[str, Variant] = module.VARIANTS
    chosen = variant if variant is not None else next(iter(variants))
    name = module.__name__.removeprefix(FAMILY + ".")
    if chosen not in variants:
        raise ConfigError(f"schema {name!r} has no variant {chosen!r}; it has {', '.join(variants)}")
    return Schema(name, chosen, module.Answer, variants[chosen].prompt, variants[chosen].form)


def _module(schema: str | ModuleType | type[BaseModel]) -> ModuleType:
    if isinstance(schema, str):
        return plugins.load(FAMILY, schema)
    if isinstance(schema, ModuleType):
        return schema
    return plugins.load(FAMILY, schema.__module__.removeprefix(FAMILY + "."))
