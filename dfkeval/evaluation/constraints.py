"""Derive what answers must match while they are written from their schema.

    free          nothing is asked for
    json_mode     any JSON object, read as JSON instead of in the schema's own form
    constrained   the schema's own form: a tool call by xgrammar's `qwen_3_5` structural tag, marked text by a
                  grammar derived from its markers and labels, JSON by its JSON Schema

How it works: a constraint is data (`dfkeval.types.Constraint`), and every backend applies it in its own way.
Grammars are written in the GBNF dialect of EBNF that xgrammar, vLLM and SGLang read.

Guarantees:

- Labels are written as training prints them.
- A constrained answer may still be cut by its token limit."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dfkdata.common.errors import ConfigError
from dfkdata.schemas import JsonForm, Label, Schema, TextForm, ToolForm
from dfkeval.backends import load_xgrammar
from dfkeval.parsing.decode import Form
from dfkeval.types import Constraint, Mode

#: xgrammar's name of the call format that Qwen3.5's template writes.
DIALECT: Final = "qwen_3_5"


def constraint(schema: Schema, mode: Mode) -> Constraint | None:
    """Return what an answer must match in a mode; None for free answers.

    Args:
        schema: The schema of the answers.
        mode: free, json_mode or constrained.

    Raises:
        ConfigError: The mode is json_mode and answers are not JSON objects, or xgrammar is needed and
            missing.
    """
    if mode == "free":
        return None
    if mode == "json_mode":
        _check_json_object(schema)
        return Constraint(kind="json_object")
    match schema.form:
        case ToolForm() as call:
            return Constraint(kind="structural_tag", text=structural_tag(schema, call))
        case TextForm() as marked:
            return Constraint(kind="grammar", text=grammar(schema, marked))
        case JsonForm(field):
            return Constraint(kind="json_schema", text=_json(_value_schema(schema, field)))


def reading(mode: Mode) -> Form:
    """Return how answers of this mode are decoded."""
    return "json" if mode == "json_mode" else "schema"


def _check_json_object(schema: Schema) -> None:
    if isinstance(schema.form, TextForm):
        raise ConfigError(
            f"mode json_mode: answers of schema {schema.name!r} are marked text, not JSON; "
            "use free or constrained"
        )
    if isinstance(schema.form, JsonForm) and schema.form.field is not None:
        raise ConfigError(
            f"mode json_mode: answers of schema {schema.name!r} are a JSON array, and json_mode writes "
            "objects; use free or constrained"
        )


def structural_tag(schema: Schema, form: ToolForm) -> str:
    """Return a structural tag in JSON: exactly one call of the schema's tool and nothing around it."""
    choice = {"type": "function", "function": {"name": form.name}}
    tag = load_xgrammar().get_model_structural_tag(
        DIALECT, tools=schema.tools, tool_choice=choice, reasoning="disabled", parallel_tool_calls=False
    )
    text: str = tag.model_dump_json()
    return text


def grammar(schema: Schema, form: TextForm) -> str:
    """Return the EBNF of marked text.

    Each marker stands as it is and each label as training prints it; other values are not empty and, if the
    form says so, on one line.
    """
    printed = dict(form.printed)
    fields = [field for _, field in form.parts]
    one_line = set(fields[-1:] if form.end else fields[:-1])
    root, rules = [], []
    for number, (marker, field) in enumerate(form.parts):
        root += [_quoted(marker)] if marker else []
        root.append(f"v{number}")
        role = schema.roles.get(field)
        if isinstance(role, Label):
            choices = [_quoted(printed.get(label, label)) for label in role.labels.canonical]
            rules.append(f"v{number} ::= " + " | ".join(choices))
        else:
            rules.append(f"v{number} ::= " + (_LINE if field in one_line else _TEXT))
    root += [_quoted(form.end)] if form.end else []
    # One rule below the root: llguidance reads it as one regular expression, in which a value of any text can end.
    return "\n".join(["root ::= answer", f"answer ::= {' '.join(root)}", *rules]) + "\n"


#: Text that begins with a visible character; `_LINE` has no line break.
_LINE: Final = r"[^ \t\r\n] [^\r\n]*"
_TEXT: Final = r"[^ \t\r\n] [^\x00]*"


def _quoted(text: str) -> str:
    """Return a terminal of the grammar."""
    return msgspec.json.encode(text).decode()


def _value_schema(schema: Schema, field: str | None) -> dict[str, Any]:
    """Return the JSON Schema of what is written: the whole answer, or one field of it."""
    whole = schema.json_schema
    if field is None:
        return whole
    inner = dict(whole["properties"][field])
    return inner | {"$defs": whole["$defs"]} if "$defs" in whole else inner


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
