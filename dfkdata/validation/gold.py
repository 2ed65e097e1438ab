"""Bind the answer of a row to its schema."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from dfkdata.common.plugins import suggestion
from dfkdata.rows.messages import read_text
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import JsonForm, Label, Prose, Schema, TextForm, ToolForm
from dfkdata.validation.rules import RowReport


def bind_gold(record: Record, schema: Schema, report: RowReport) -> Record:
    """Return the record with gold that is valid for a schema: labels are canonical, null values stay.

    Args:
        record: The row; gold that it lacks is read from its own last turn.
        schema: What the answer must be.
        report: Called with ANSWER_COPIES_PROMPT, TOOL_ARGS_INVALID and GOLD_INVALID.

    Raises:
        RowError: For LABEL_UNKNOWN, with a suggestion, and for an answer of another form.
    """
    answer = record.gold if record.gold is not None else written_gold(record, schema)
    if answer is None:
        return record
    gold = dict(answer)
    fields = schema.answer.model_fields
    if gold and fields.keys().isdisjoint(gold):  # an answer of optional fields would accept it as empty
        hint = f"it has {', '.join(fields)}; is this the right --schema?"
        reason = f"no field of the answer belongs to the schema {schema.name!r}"
        raise RowError("GOLD_INVALID", reason, path="gold", value=gold, hint=hint)
    for name, role in schema.roles.items():
        value = gold.get(name)
        if isinstance(role, Label) and isinstance(value, str | int) and not isinstance(value, bool):
            gold[name] = _label(str(value), role, name)
        elif isinstance(role, Prose) and isinstance(value, str) and value and value in record.fields.values():
            reason, hint = "the answer is a field of the prompt", "write an answer of its own"
            report(RowError("ANSWER_COPIES_PROMPT", reason, path=name, value=value, hint=hint))
    _validate(gold, schema, report)
    return replace(record, gold=gold)


def written_gold(record: Record, schema: Schema) -> dict[str, Any] | None:
    """Return the gold that the row's own answer gives in the schema's form; None if it has no answer.

    Raises:
        RowError: GOLD_INVALID for an answer of another form.
    """
    if not record.messages or record.messages[-1].get("role") != "assistant":
        return None
    last = record.messages[-1]
    gold: dict[str, Any] | None
    if isinstance(schema.form, ToolForm):
        calls = [call["function"] for call in last.get("tool_calls", ())]
        gold = next((call["arguments"] for call in calls if call["name"] == schema.form.name), None)
    else:
        text = "".join(part.get("text", "") for part in last["content"])
        gold = (
            read_text(text, schema.form)
            if isinstance(schema.form, TextForm)
            else _json_gold(text, schema.form)
        )
    if gold is None:
        hint = (
            f"the schema {schema.name!r} expects another form; leave --schema out to keep answers as they are"
        )
        path = f"messages.{len(record.messages) - 1}"
        raise RowError(
            "GOLD_INVALID", "the answer is not of the schema's form", path=path, value=last, hint=hint
        )
    return gold


def _json_gold(text: str, form: JsonForm) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    if form.field is not None:
        return {form.field: value}
    return value if isinstance(value, dict) else None


def _label(value: str, role: Label, name: str) -> str:
    resolved = role.labels.resolve(value)
    if resolved is None:
        near = suggestion(value.strip().lower(), role.labels.spellings).removeprefix("; ")
        hint = near or f"one of {', '.join(role.labels.canonical)}; --labels MAP.yaml maps other spellings"
        raise RowError("LABEL_UNKNOWN", f"{value!r} is no label", path=name, value=value, hint=hint)
    return resolved.label


def _validate(gold: dict[str, Any], schema: Schema, report: RowReport) -> None:
    try:
        schema.answer.model_validate(gold)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["gold", *(str(step) for step in first["loc"])])
        code = "TOOL_ARGS_INVALID" if isinstance(schema.form, ToolForm) else "GOLD_INVALID"
        hint = f"see the schema: dfkdata schema {schema.name}"
        report(RowError(code, first["msg"], path=place, value=first["input"], hint=hint))
