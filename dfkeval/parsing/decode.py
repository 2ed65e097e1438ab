"""Read an answer in a schema: text becomes a value, or a failure with a kind and its problems.

How it works: the schema's form says how the answer is written. The tool-call parser reads a tool form,
and `marked_text` a text form. Strict reading takes exactly the form that training writes; lenient reading
mends, and names each repair. Other ways of writing an answer (`form="json"`, `form="hermes"`) are read
only if they are asked for.

Guarantees:
- Never raises for a str.
- The JSON Schema of the answer and the answer class itself have accepted every value.
- The kinds of failures are the closed list KINDS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, Literal, get_args

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.common.json_schema import Validator, pointer_step, schema_validator
from dfkdata.schemas import JsonForm, Label, Schema, TextForm, ToolForm, json_schema, tool
from dfkeval.parsing.json_call import call_arguments, looks_like_call
from dfkeval.parsing.json_text import LiteralError, scan_mended, skip_blanks
from dfkeval.parsing.marked_text import MarkedAnswer, TextFailure, read_marked, visible_span
from dfkeval.parsing.toolcall import Mode, ParseResult, Problem, ToolCallParser

Kind = Literal[
    "truncated",
    "empty",
    "no_call",
    "wrong_function",
    "bad_xml",
    "bad_json",
    "bad_text",
    "ambiguous",
    "schema_invalid",
    "unknown_label",
    "class_refused",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
Form = Literal["schema", "hermes", "json"]

#: Codes of problems that are about JSON, also of values in a call that is written with tags.
_JSON_CODES: Final = frozenset(
    {
        "bad_json",
        "duplicate_key",
        "not_finite",
        "too_deep",
        "too_many_digits",
        "extra_text",
        "bad_python_literal",
        "open_string",
        "control_character",
        "raw_line_break",
    }
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A valid answer.

    Attributes:
        value: field -> value as it was written, typed. Defaults are not filled in, written nulls are kept.
        repairs: names of what was mended; "label_alias" may stand here in strict mode too.

    Example:
        >>> from dfkeval import decode
        >>> decode("Label: fitnah\\n\\nAnalisis: Tanpa bukti.", "dfk_label")
        Decoded(value={'label': 'fitnah', 'analisis': 'Tanpa bukti.'}, repairs=())"""

    value: dict[str, Any]
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """No valid answer.

    Attributes:
        kind: one of KINDS.
        problems: what is wrong, with spans into the text.

    Example:
        >>> from dfkeval import decode
        >>> failure = decode("Label: bohong\\n\\nAnalisis: Tanpa bukti.", "dfk_label")
        >>> failure.kind, failure.problems[0].json_pointer
        ('unknown_label', '/label')"""

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
    """Read `text` as an answer in a schema.

    Args:
        text: what a model wrote.
        schema: the name of a schema, a module, an answer class, or a loaded schema.
        mode: "strict" or "lenient".
        finished: False if generation stopped at its token limit.
        form: "schema" for the schema's own form, "hermes" for a JSON tool call, "json" for a bare or fenced
            JSON object.

    Returns:
        The value, or why there is none.

    Raises:
        ConfigError: if there is no such schema, mode or form.

    Example:
        >>> from dfkeval import decode
        >>> decode("**Label**: Fitnah\\nAnalisis: Tanpa bukti.", "dfk_label", mode="lenient").value["label"]
        'fitnah'"""
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


# --- tool calls --------------------------------------------------------------------------------------------

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
        return Failure(_kind(result.problems[0], dialect), tuple(result.problems))
    if not result.calls:
        return Failure("no_call" if finished else "truncated")
    if len(result.calls) > 1:
        return _too_many(result)
    call = result.calls[0]
    return _checked_by_class(call.arguments, schema, call.repairs, call.span)


def _too_many(result: ParseResult) -> Failure:
    first, last = result.calls[0], result.calls[-1]
    message = f"{len(result.calls)} calls where one answer is expected"
    return Failure(
        "ambiguous", (Problem("ambiguous", "several_calls", message, (first.span[0], last.span[1])),)
    )


def _kind(problem: Problem, dialect: CallDialect) -> Kind:
    if problem.status == "truncated" or problem.status == "ambiguous":
        return problem.status
    if problem.code == "unknown_function":
        return "wrong_function"
    if problem.code in _JSON_CODES:
        return "bad_json"
    if problem.status != "malformed":
        return "schema_invalid"
    return "bad_json" if dialect == "hermes" else "bad_xml"


def _checked_by_class(
    value: dict[str, Any], schema: Schema, repairs: tuple[str, ...], span: tuple[int, int]
) -> Decoded | Failure:
    """Return a value that the JSON Schema accepts, if it can be encoded and the answer class accepts it too:
    the validators of a class may ask for more than its JSON Schema says."""
    surrogate = _lone_surrogate(value)
    if surrogate is not None:
        message = f"{surrogate!r} is half of a character and cannot be encoded"
        return Failure("bad_json", (Problem("malformed", "lone_surrogate", message, span),))
    try:
        schema.answer.model_validate(value)
    except ValidationError as refused:
        errors = refused.errors(include_url=False, include_context=False, include_input=False)
        return Failure("class_refused", tuple(_class_problem(error, span) for error in errors))
    return Decoded(value, repairs)


def _class_problem(error: ErrorDetails, span: tuple[int, int]) -> Problem:
    pointer = "".join(pointer_step(str(step)) for step in error["loc"])
    return Problem("invalid", error["type"], error["msg"], span, pointer)


def _lone_surrogate(value: dict[str, Any]) -> str | None:
    """Return the first lone surrogate in any text of `value`, which no file and no server could take."""
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        return str(error.object)[error.start]
    return None


# --- JSON ------------------------------------------------------------------------------------------------

_BRACKET: Final = re.compile(r"[\[{]")
_FENCED: Final = re.compile(r"```(?:json)?[ \t]*+\n(?=[ \t\r\n]*+[\[{])")
_JSON_REPAIRS: Final = {
    "code_fence": "the JSON stands in a code fence",
    "text_around_json": "text stands around the JSON",
    "json_call": "the JSON is a call of a tool, and its arguments alone were asked for",
}


def _json_value(text: str, schema: Schema, mode: Mode, finished: bool, fenced: bool) -> Decoded | Failure:
    """JSON and nothing else; `fenced`: a code fence around it is part of the form. Lenient reading accepts a
    fence and prose around it."""
    start, end = visible_span(text)
    fence = _FENCED.search(text, start, end)
    begin = _json_start(text, fence.end() if fence else start, end, search=mode == "lenient")
    if begin is None:
        return Failure("no_call" if finished else "truncated")
    try:
        value, stop, repairs = scan_mended(text[:end], begin, mode == "lenient")
    except LiteralError as bad:
        problem = Problem("malformed", bad.code, str(bad), (begin, end))
        return Failure("bad_json" if finished else "truncated", (problem,))
    before = text[start : fence.start() if fence else begin].strip()
    if fence and not fenced:
        repairs.append("code_fence")
    if before or text[stop:end].strip() != ("```" if fence else ""):
        repairs.append("text_around_json")
    if repairs and mode == "strict":
        problem = Problem("malformed", repairs[0], _JSON_REPAIRS[repairs[0]], (start, end))
        return Failure("bad_json", (problem,))
    form = schema.form
    if isinstance(form, ToolForm) and _is_call(value, form, schema):
        return _json_call(value, form, schema, mode, repairs, (begin, stop))
    return _checked_json(_in_field(value, schema), schema, tuple(repairs), (begin, stop))


def _is_call(value: Any, form: ToolForm, schema: Schema) -> bool:
    """Return whether `value` is a call, and not the arguments of one."""
    if not isinstance(value, dict) or not schema.answer.model_fields.keys().isdisjoint(value):
        return False
    return looks_like_call(value, form.name)


def _json_call(
    value: dict[str, Any],
    form: ToolForm,
    schema: Schema,
    mode: Mode,
    repairs: list[str],
    span: tuple[int, int],
) -> Decoded | Failure:
    """Read a call where its arguments alone are asked for; only lenient reading does."""
    code, message = "json_call", _JSON_REPAIRS["json_call"]
    if mode == "lenient":
        if value.get("name", form.name) != form.name:
            message = f"the JSON is a call of {value['name']!r} and not of {form.name!r}"
            return Failure("wrong_function", (Problem("invalid", "unknown_function", message, span),))
        try:
            arguments, mended = call_arguments(value, lenient=True)
        except LiteralError as bad:
            code, message = bad.code, str(bad)
        else:
            return _checked_json(arguments, schema, (*repairs, "json_call", *mended), span)
    return Failure("bad_json", (Problem("malformed", code, message, span),))


def _json_start(text: str, start: int, end: int, search: bool) -> int | None:
    """Return where the first JSON container begins: at `start` behind blanks, or anywhere if `search`."""
    begin = skip_blanks(text, start)
    if search:
        bracket = _BRACKET.search(text, begin, end)
        return bracket.start() if bracket else None
    return begin if begin < end and text[begin] in "[{" else None


def _in_field(value: Any, schema: Schema) -> Any:
    field = schema.form.field if isinstance(schema.form, JsonForm) else None
    return value if field is None else {field: value}


def _checked_json(
    value: Any, schema: Schema, repairs: tuple[str, ...], span: tuple[int, int]
) -> Decoded | Failure:
    issues = _validator(schema.answer).issues(value)
    if issues:
        problems = (Problem("invalid", issue.code, issue.message, span, issue.pointer) for issue in issues)
        return Failure("schema_invalid", tuple(problems))
    return _checked_by_class(value, schema, repairs, span)


@lru_cache(maxsize=64)
def _validator(answer: type[BaseModel]) -> Validator:
    return schema_validator(json_schema(answer))


# --- marked text -------------------------------------------------------------------------------------------


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
    """Put the canonical label in place of the written one; note a spelling that training does not write."""
    written = read.value[field]
    resolved = role.labels.resolve(written)
    if resolved is None:
        message = f"{written!r} names none of {', '.join(role.labels.canonical)}"
        problem = Problem("invalid", "unknown_label", message, read.spans[field], pointer_step(field))
        return Failure("unknown_label", (problem,))
    if dict(form.printed).get(resolved.label, resolved.label) != written:
        repairs.append("label_alias")
    read.value[field] = resolved.label
    return None
