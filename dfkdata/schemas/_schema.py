"""A loaded schema, and the loader that finds one by name, module or answer class."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.schemas._form import Form, Prompt, ToolForm, Variant
from dfkdata.schemas._json_schema import json_schema, tool
from dfkdata.schemas._roles import Label, Role, roles


@dataclass(frozen=True)
class Schema:
    """A loaded schema in one of its variants.

    Attributes:
        name: The member's name.
        variant: The name of the variant.
        answer: The pydantic class of the answer.
        prompt: How the model is asked.
        form: How the answer is written.
        spellings: Spellings of labels that a user maps, each with its class.
    """

    name: str
    variant: str
    answer: type[BaseModel]
    prompt: Prompt
    form: Form
    spellings: dict[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Return the role of each field that has one, in field order."""
        own = roles(self.answer)
        return {name: self._spelt(role) for name, role in own.items()} if self.spellings else own

    def _spelt(self, role: Role) -> Role:
        if not isinstance(role, Label):
            return role
        classes = role.labels.canonical
        return Label(role.labels.with_own({k: v for k, v in self.spellings.items() if v in classes}))

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """Return the answer's JSON Schema."""
        return json_schema(self.answer)

    @cached_property
    def tools(self) -> list[dict[str, Any]] | None:
        """Return the tool definitions that the model is shown; None for a text form."""
        if isinstance(self.form, ToolForm):
            return [tool(self.form.name, self.form.description, self.answer)]
        return None


FAMILY = "dfkdata.schemas"


def load(
    schema: str | ModuleType | type[BaseModel] | Schema,
    variant: str | None = None,
    *,
    source: str | None = None,
) -> Schema:
    """Load a schema in one of its variants.

    Args:
        schema: A member's name, its module, its answer class, or a loaded schema, which is returned as it is.
        variant: The name of one of its VARIANTS; None takes the first.
        source: The file that names the schema, which may then name only what ships or what the user trusts; None
            for a name that the user gave.

    Returns:
        The schema with its answer class, prompt and form.

    Raises:
        ConfigError: If the name or the variant is unknown; the message lists the choices. If a file names a
            module that the user does not trust.

    Example:
        >>> from dfkdata import schemas
        >>> schema = schemas.load("dfk_label", "card")
        >>> list(schema.roles)
        ['label', 'analisis']
    """
    if isinstance(schema, Schema):
        return schema
    module = _module(schema, source)
    variants: dict[str, Variant] = module.VARIANTS
    selected = variant if variant is not None else next(iter(variants))
    name = module.__name__.removeprefix(FAMILY + ".")
    if selected not in variants:
        raise ConfigError(f"schema {name!r} has no variant {selected!r}; it has {', '.join(variants)}")
    return Schema(name, selected, module.Answer, variants[selected].prompt, variants[selected].form)


def _module(schema: str | ModuleType | type[BaseModel], source: str | None) -> ModuleType:
    if isinstance(schema, str):
        return plugins.load(FAMILY, schema, source=source)
    if isinstance(schema, ModuleType):
        return schema
    return plugins.load(FAMILY, schema.__module__.removeprefix(FAMILY + "."))
