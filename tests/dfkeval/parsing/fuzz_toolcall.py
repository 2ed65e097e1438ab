"""Coverage-guided fuzzing of the tool-call parser and `decode` with atheris; run by `test_toolcall_atheris`,
or by hand:

    python tests/dfkeval/parsing/fuzz_toolcall.py -runs=1000000 CORPUS_FOLDER

Every input byte picks a piece of the syntax or stands for itself, so that mutations keep meeting tags."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=[
        "dfkeval.parsing.toolcall",
        "dfkeval.parsing.coercion",
        "dfkeval.parsing.decode",
        "dfkeval.parsing.marked_text",
    ]
):
    from dfkeval.parsing.decode import decode
    from dfkeval.parsing.toolcall import ToolCallParser
    from dfkeval.testing.roundtrip import TOOLS
    from dfkeval.testing.strategies import PIECES

PARSERS = [
    ToolCallParser(TOOLS, mode=mode, prefill=prefill, finished=finished)
    for mode in ("strict", "lenient")
    for prefill in ("none", "think")
    for finished in (True, False)
]


def one_input(data: bytes) -> None:
    """Nothing raises, sources join to the input, and what strict returns lenient returns too."""
    text = "".join(PIECES[byte % len(PIECES)] if byte >= 0x60 else chr(byte) for byte in data)
    results = [parser.parse(text) for parser in PARSERS]
    for result in results:
        assert "".join(segment.source for segment in result.segments) == text
    assert all(call in results[4].calls for call in results[0].calls)
    for schema in ("caption", "dfk_label"):
        decode(text, schema)
        decode(text, schema, mode="lenient")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
