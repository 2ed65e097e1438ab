"""`dfkeval parse`: read one answer from standard input and print it as JSON, with every problem underlined.

The bytes are taken as they are, except for one final newline, which shells and editors add and no model
wrote; `--exact` keeps it. The exit status is 0 for a valid answer, else 1."""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Annotated, Any, Literal

import typer

from dfkdata import schemas
from dfkdata.common.console import examples, say, write
from dfkdata.common.errors import ConfigError
from dfkdata.common.status_line import now
from dfkeval.parsing.decode import Decoded, Failure, Form, decode
from dfkeval.parsing.toolcall import CallFinished, Mode, Problem, ToolCallParser

EXAMPLES = examples(
    "dfkeval parse --schema caption < answer.txt",
    "dfkeval parse --schema dfk_label --mode lenient < answer.txt",
)
_WIDTH = 100


def parse_command(
    schema: Annotated[str, typer.Option(help="Output schema, for example caption or dfk_label.")],
    mode: Annotated[
        Literal["strict", "lenient"], typer.Option(help="lenient mends, and names each repair.")
    ] = "strict",
    form: Annotated[
        Literal["schema", "hermes", "json"], typer.Option(help="How the answer is written.")
    ] = "schema",
    cut: Annotated[bool, typer.Option("--cut", help="Generation stopped at its token limit.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Also print one JSON line per finished call, as text arrives.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="A final newline is part of the answer; else one is left out.")
    ] = False,
) -> None:
    """Read one answer from standard input and print what it says, as JSON."""
    now("")
    text = _streamed(schema, mode) if stream else _decoded(sys.stdin.buffer.read())
    if not exact and text.endswith("\n"):
        text = text[: -2 if text.endswith("\r\n") else -1]
    report, valid = report_of(text, schema, mode, form, finished=not cut)
    write(json.dumps(report, ensure_ascii=False) + "\n")
    for problem in report.get("problems", ()):
        say(f"{problem['status']} ({problem['code']}): {problem['message']}")
        say(problem["underlined"])
    raise typer.Exit(0 if valid else 1)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"standard input is not UTF-8 (byte {error.start}); convert it, for example with iconv"
        raise ConfigError(message) from error


def report_of(
    text: str, schema: str, mode: Mode, form: Form, *, finished: bool
) -> tuple[dict[str, Any], bool]:
    """Return the JSON object that the command prints, and whether the answer is valid."""
    result = decode(text, schema, mode=mode, form=form, finished=finished)
    if isinstance(result, Decoded):
        return {"ok": True, "value": result.value, "repairs": list(result.repairs)}, True
    return _failed(result, text), False


def _failed(failure: Failure, text: str) -> dict[str, Any]:
    problems = [{**problem._asdict(), "underlined": underline(text, problem)} for problem in failure.problems]
    return {"ok": False, "kind": failure.kind, "problems": problems}


def underline(text: str, problem: Problem) -> str:
    """Return the line where a problem begins, and below it carets under its span; long lines are cut around
    it."""
    start, end = problem.span
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    stop = len(text) if stop < 0 else stop
    shown = max(line, start - _WIDTH // 2)
    stop = min(stop, shown + _WIDTH)
    blanks = "".join(
        "\t" if character == "\t" else " " * _columns(character) for character in text[shown:start]
    )
    carets = "^" * max(1, sum(_columns(character) for character in text[start : min(end, stop)]))
    return f"{text[shown:stop]}\n{blanks}{carets}"


def _columns(character: str) -> int:
    """Return how many columns of a terminal a character takes."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _streamed(schema: str, mode: Mode) -> str:
    """Standard input line by line, one JSON line on standard output per call that is complete so far."""
    parser = ToolCallParser(schemas.load(schema).tools, mode=mode)
    stream = parser.stream()
    pieces: list[str] = []
    for line in sys.stdin.buffer:
        piece = _decoded(line)
        pieces.append(piece)
        for event in stream.feed(piece):
            if isinstance(event, CallFinished):
                call = {"event": "call", "name": event.call.name, "arguments": event.call.arguments}
                write(json.dumps(call, ensure_ascii=False) + "\n")
                sys.stdout.flush()  # a reader waits for it
    return "".join(pieces)
