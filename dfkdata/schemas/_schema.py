"""A loaded schema, and the loader that finds one by name, module or answer class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.schemas._form import Form, Prompt, ToolForm, Variant
from dfkdata.schemas._json_schema import json_schema, tool
from dfkdata.schemas._roles import Role, roles


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
