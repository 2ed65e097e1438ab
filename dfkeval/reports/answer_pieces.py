"""Cut an answer into pieces for a reader: where each field stands, and where each problem."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise

from dfkdata.schemas import JsonForm, Schema, TextForm, ToolForm
from dfkeval.parsing.decode import Failure, Form, decode
from dfkeval.parsing.marked_text import MarkedAnswer, read_marked
from dfkeval.parsing.toolcall import ToolCallParser

Piece = tuple[str, int, int]
"""Text, number of its field, number of its problem; -1 for none."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]')


def pieces(
    text: str,
    schema: Schema,
    fields: Mapping[str, int],
    *,
    form: Form = "schema",
    finished: bool = True,
    valid: bool = False,
) -> tuple[list[Piece], list[str]]:
    """Return the pieces of an answer, which join to it, and the problems that they point at.

    Args:
        text: What the model wrote.
        schema: The schema of the answer.
        fields: Field -> its number.
        form: How the answer is written, as in `decode`.
        finished: False if generation stopped at its token limit.
        valid: Whether the answer is known to have no problem, so that none is looked for.
    """
    spans = [(start, end, fields[name]) for name, start, end in _fields(text, schema, form) if name in fields]
    read = None if valid else decode(text, schema, mode="strict", finished=finished, form=form)
    found = list(read.problems) if isinstance(read, Failure) else []
    whole = [problem for problem in found if problem.span[1] - problem.span[0] < len(text)]
    marks = [(*problem.span, at) for at, problem in enumerate(whole)]
    edges = sorted({0, len(text), *(edge for start, end, _ in [*spans, *marks] for edge in (start, end))})
    edges = [edge for edge in edges if 0 <= edge <= len(text)]
    cut = [(text[start:end], _at(spans, start), _at(marks, start)) for start, end in pairwise(edges)]
    return cut, [f"{problem.code}: {problem.message}" for problem in whole]


def _at(spans: list[tuple[int, int, int]], place: int) -> int:
    """Return the number of the shortest span that holds a place; -1 if none does."""
    inside = [(end - start, number) for start, end, number in spans if start <= place < end]
    return min(inside)[1] if inside else -1


def _fields(text: str, schema: Schema, form: Form) -> Iterator[tuple[str, int, int]]:
    """Yield (field, start, end) of each value that lenient reading finds."""
    if form == "schema" and isinstance(schema.form, TextForm):
        marked = read_marked(text, schema.form, lenient=True)
        if isinstance(marked, MarkedAnswer):
            yield from ((name, *span) for name, span in marked.spans.items())
    elif form != "json" and isinstance(schema.form, ToolForm):
        for call in _parser(schema).parse(text).calls:
            yield from ((name, *span) for name, span in call.spans.items())
    elif not isinstance(schema.form, JsonForm) or schema.form.field is None:
        yield from _json_fields(text)


@lru_cache(maxsize=8)
def _parser(schema: Schema) -> ToolCallParser:
    return ToolCallParser(schema.tools, mode="lenient")


def _json_fields(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the values of the outermost JSON object of a text, whole or broken."""
    depth, key, begin = 0, "", -1
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in "[{":
            depth += 1
        elif sign == ":" and depth == 1:
            begin = token.end()
        elif (sign == "," and depth == 1) or (sign in "]}" and depth == 1):
            if begin >= 0:
                yield key, begin, token.start()
            begin = -1
        elif sign[0] == '"' and depth == 1 and begin < 0:
            key = sign[1:-1]
        if sign in "]}":
            depth -= 1
            if depth <= 0:
                return
    if begin >= 0:
        yield key, begin, len(text)
