"""`dfkeval parse`: text on standard input -> one JSON object, with every problem underlined in its source
line.

A thin command: it reads, calls `decode` (or the parser, for the streamed form) and prints. Exit 0: a valid
answer; 1: none."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

import typer

from dfkdata import schemas
from dfkeval.decoding import Decoded, Failure, Form, decode
from dfkeval.toolcall import CallFinished, Mode, Problem, ToolCallParser

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
) -> None:
    """Read one answer from standard input and print what it says, as JSON.

    Examples:

      dfkeval parse --schema caption < answer.txt

      dfkeval parse --schema dfk_label --mode lenient < answer.txt
    """
    text = _streamed(schema, mode) if stream else sys.stdin.read()
    report, good = report_of(text, schema, mode, form, finished=not cut)
    sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    raise typer.Exit(0 if good else 1)


def report_of(
    text: str, schema: str, mode: Mode, form: Form, *, finished: bool
) -> tuple[dict[str, Any], bool]:
    """The JSON object that the command prints, and whether the answer is valid."""
    result = decode(text, schema, mode=mode, form=form, finished=finished)
    if isinstance(result, Decoded):
        return {"ok": True, "value": result.value, "repairs": list(result.repairs)}, True
    return _failed(result, text), False


def _failed(failure: Failure, text: str) -> dict[str, Any]:
    problems = [{**problem._asdict(), "underlined": underline(text, problem)} for problem in failure.problems]
    return {"ok": False, "kind": failure.kind, "problems": problems}


def underline(text: str, problem: Problem) -> str:
    """The line where `problem` begins with its span marked by carets below, long lines cut around it."""
    start, end = problem.span
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    stop = len(text) if stop < 0 else stop
    shown = max(line, start - _WIDTH // 2)
    stop = min(stop, shown + _WIDTH)
    carets = "^" * max(1, min(end, stop) - start)
    return f"{text[shown:stop]}\n{' ' * (start - shown)}{carets}"


def _streamed(schema: str, mode: Mode) -> str:
    """Standard input line by line, one JSON line on standard output per call that is complete so far."""
    parser = ToolCallParser(schemas.load(schema).tools, mode=mode)
    stream = parser.stream()
    pieces: list[str] = []
    for piece in sys.stdin:
        pieces.append(piece)
        for event in stream.feed(piece):
            if isinstance(event, CallFinished):
                sys.stdout.write(
                    json.dumps(
                        {"event": "call", "name": event.call.name, "arguments": event.call.arguments},
                        ensure_ascii=False,
                    )
                    + "\n"
                )
                sys.stdout.flush()
    return "".join(pieces)
