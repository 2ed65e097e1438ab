"""Text + schema -> data: the only place where what a model said becomes a value, or a failure with a kind and
its problems.

Strategy: the schema's form says how the answer is written. A tool form is read by the tool-call parser; a
text form by its markers. Strict reads exactly the form that training writes; lenient mends, and names each
repair. Other ways of writing an answer (`form="json"`, `form="hermes"`) are read on demand and never guessed.

Promises: never raises for a str; a value has passed the answer class itself; failures are of the closed list
KINDS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, Literal, get_args

import msgspec
from pydantic import BaseModel, ValidationError

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.common.json_schema import Validator, pointer_step, schema_validator
from dfkdata.schemas import JsonForm, Label, Schema, TextForm, ToolForm, json_schema, tool
from dfkeval.parsing.json_text import LiteralError, scan_json, skip_blanks
from dfkeval.parsing.marked_text import MarkedAnswer, TextFailure, read_marked, visible_span
from dfkeval.parsing.toolcall import Mode, ParseResult, Problem, ToolCallParser

Kind = Literal[
    "truncated",
    "empty",
    "no_call",
    "wrong_function",
    "bad_xml",
    "bad_json",
    "ambiguous",
    "schema_invalid",
    "unknown_label",
    "class_refused",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
Form = Literal["schema", "hermes", "json"]

_JSON_CODES: Final = frozenset(
    {
        "bad_json",
        "duplicate_key",
        "not_finite",
        "too_deep",
        "too_many_digits",
        "extra_text",
        "bad_python_literal",
        "bad_json_call",
    }
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A valid answer. `value`: what was written, typed; defaults are not filled in, written nulls are kept.
    `repairs`: what was mended, by name; "label_alias" may stand here in strict mode too."""

    value: dict[str, Any]
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """No valid answer. `kind`: one of KINDS; `problems`: what is wrong where, spans into the text."""

    kind: Kind
    problems: tuple[Problem, ...] = ()


def decode(
    text: str,
    schema: str | ModuleType | type[BaseModel] | Schema,
    *,
    mode: Mode = "strict",
    finished: bool = True,
    form: Form = "schema",
) -> Decoded | Failure:
    """Read `text` as an answer in `schema` (a name, module, answer class or loaded schema).

    mode: "strict" or "lenient". finished: False when generation stopped at its token limit. form: "schema"
    for the schema's own form, "hermes" for a JSON tool call, "json" for a bare or fenced JSON object. Raises
    ConfigError for an unknown schema or option."""
    loaded = schemas.load(schema)
    if mode not in get_args(Mode) or form not in get_args(Form):
        choices = ", ".join(get_args(Form))
        raise ConfigError(
            f"mode={mode!r}, form={form!r}: mode is strict or lenient, form is one of {choices}"
        )
    if not text.strip():
        return Failure("empty" if finished else "truncated")
    if form == "json":
        return _json_value(text, loaded, mode, finished, fenced=True)
    if form == "hermes" and not isinstance(loaded.form, ToolForm):
        raise ConfigError(f"schema {loaded.name!r} has no tool to call; hermes reads tool calls only")
    match loaded.form:
        case ToolForm() as call:
            return _tool_call(text, loaded, call, mode, finished, "hermes" if form == "hermes" else "auto")
        case TextForm() as marked:
            return _marked_text(text, loaded, marked, mode, finished)
        case _:  # JsonForm: the one that is left
            return _json_value(text, loaded, mode, finished, fenced=False)


# --- tool calls
# ------------------------------------------------------------------------------------------------------


CallDialect = Literal["auto", "hermes"]


@lru_cache(maxsize=64)
def _parser(
    answer: type[BaseModel], form: ToolForm, mode: Mode, dialect: CallDialect, finished: bool
) -> ToolCallParser:
    definition = tool(form.name, form.description, answer)
    return ToolCallParser([definition], mode=mode, dialect=dialect, finished=finished)


def _tool_call(
    text: str, schema: Schema, form: ToolForm, mode: Mode, finished: bool, dialect: CallDialect
) -> Decoded | Failure:
    result = _parser(schema.answer, form, mode, dialect, finished).parse(text)
    if result.problems:
        return Failure(_kind(result.problems[0]), tuple(result.problems))
    if not result.calls:
        return Failure("no_call" if finished else "truncated")
    if len(result.calls) > 1:
        return _too_many(result)
    call = result.calls[0]
    return _checked(call.arguments, schema, call.repairs, call.span)


def _too_many(result: ParseResult) -> Failure:
    first, last = result.calls[0], result.calls[-1]
    message = f"{len(result.calls)} calls where one answer is expected"
    return Failure(
        "ambiguous", (Problem("ambiguous", "several_calls", message, (first.span[0], last.span[1])),)
    )


def _kind(problem: Problem) -> Kind:
    if problem.status == "truncated" or problem.status == "ambiguous":
        return problem.status
    if problem.code == "unknown_function":
        return "wrong_function"
    if problem.code in _JSON_CODES:
        return "bad_json"
    return "bad_xml" if problem.status == "malformed" else "schema_invalid"


def _checked(
    value: dict[str, Any], schema: Schema, repairs: tuple[str, ...], span: tuple[int, int]
) -> Decoded | Failure:
    """A value that the JSON Schema takes, if it is text and the answer class takes it too: its validators may
    ask for more than its JSON Schema says."""
    half = _half_character(value)
    if half is not None:
        message = f"{half!r} is half of a character and no text"
        return Failure("bad_json", (Problem("malformed", "lone_surrogate", message, span),))
    try:
        schema.answer.model_validate(value)
    except ValidationError as bad:
        problems = [
            Problem(
                "invalid",
                error["type"],
                error["msg"],
                span,
                "".join(pointer_step(str(step)) for step in error["loc"]),
            )
            for error in bad.errors(include_url=False, include_context=False, include_input=False)
        ]
        return Failure("class_refused", tuple(problems))
    return Decoded(value, repairs)


def _half_character(value: dict[str, Any]) -> str | None:
    """The first lone surrogate in any text of `value`, which no file and no server could take; None for
    none."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        return str(error.object)[error.start]
    return None


# --- JSON ------------------------------------------------------------------------------------------------

_FENCED: Final = re.compile(r"```(?:json)?[ \t]*+\n(?=[ \t\r\n]*+[\[{])")
_JSON_REPAIRS: Final = {
    "code_fence": "the JSON stands in a code fence",
    "text_around_json": "text stands around the JSON",
}


def _json_value(text: str, schema: Schema, mode: Mode, finished: bool, fenced: bool) -> Decoded | Failure:
    """JSON and nothing else; `fenced`: a code fence around it is part of the form. Lenient takes a fence and
    prose."""
    start, end = visible_span(text)
    fence = _FENCED.search(text, start, end)
    begin = _json_start(text, fence.end() if fence else start, end, search=mode == "lenient")
    if begin is None:
        return Failure("no_call" if finished else "truncated")
    try:
        value, stop = scan_json(text[:end], begin)
    except LiteralError as bad:
        problem = Problem("malformed", bad.code, str(bad), (begin, end))
        return Failure("bad_json" if finished else "truncated", (problem,))
    before = text[start : fence.start() if fence else begin].strip()
    repairs = ["code_fence"] if fence and not fenced else []
    if before or text[stop:end].strip() != ("```" if fence else ""):
        repairs.append("text_around_json")
    if repairs and mode == "strict":
        problem = Problem("malformed", repairs[0], _JSON_REPAIRS[repairs[0]], (start, end))
        return Failure("bad_json", (problem,))
    return _checked_json(_in_field(value, schema), schema, tuple(repairs), (begin, stop))


def _json_start(text: str, start: int, end: int, search: bool) -> int | None:
    """Where the first JSON container begins: at `start` behind blanks, or anywhere if `search`."""
    begin = skip_blanks(text, start)
    if search:
        found = _CONTAINER.search(text, begin, end)
        return found.start() if found else None
    return begin if begin < end and text[begin] in "[{" else None


_CONTAINER: Final = re.compile(r"[\[{]")


def _in_field(value: Any, schema: Schema) -> Any:
    field = schema.form.field if isinstance(schema.form, JsonForm) else None
    return value if field is None else {field: value}


def _checked_json(
    value: Any, schema: Schema, repairs: tuple[str, ...], span: tuple[int, int]
) -> Decoded | Failure:
    issues = _validator(schema.answer).issues(value)
    if issues:
        return Failure(
            "schema_invalid", tuple(Problem("invalid", i.code, i.message, span, i.pointer) for i in issues)
        )
    return _checked(value, schema, repairs, span)


@lru_cache(maxsize=64)
def _validator(answer: type[BaseModel]) -> Validator:
    return schema_validator(json_schema(answer))


# --- marked text
# -----------------------------------------------------------------------------------------------------


def _marked_text(text: str, schema: Schema, form: TextForm, mode: Mode, finished: bool) -> Decoded | Failure:
    if not finished:
        return Failure("truncated", (Problem("truncated", "truncated", "the text was cut", (0, len(text))),))
    read = read_marked(text, form, lenient=mode == "lenient")
    if isinstance(read, TextFailure):
        return Failure(read.kind, tuple(read.problems))
    repairs = list(read.repairs)
    for field, role in schema.roles.items():
        if isinstance(role, Label) and field in read.value:
            failure = _canonical(read, field, role, form, repairs)
            if failure is not None:
                return failure
    return _checked_json(read.value, schema, tuple(repairs), read.span)


def _canonical(
    read: MarkedAnswer, field: str, role: Label, form: TextForm, repairs: list[str]
) -> Failure | None:
    """Put the canonical label in its place; a spelling other than the trained one is noted in both modes."""
    written = read.value[field]
    resolved = role.labels.resolve(written)
    if resolved is None:
        message = f"{written!r} names none of {', '.join(role.labels.canonical)}"
        return Failure(
            "unknown_label",
            (Problem("invalid", "unknown_label", message, read.spans[field], pointer_step(field)),),
        )
    if dict(form.printed).get(resolved.label, resolved.label) != written:
        repairs.append("label_alias")
    read.value[field] = resolved.label
    return None
