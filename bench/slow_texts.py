"""Search for texts that the tool-call parser reads slowly: all pairs, or a sample of triples, of tag fragments.

    python bench/slow_texts.py [--parts 2] [--size 200000] [--seconds 300] [--seed 0] [--with-calls]

Every text is read by six parsers (strict, lenient, JSON calls, no tools) whole, and by one of them, drawn, in pieces of
four characters. The limit is in units of the machine: LIMIT times a plain scan, which is one pass of a pattern
over as many characters, measured beside each text that seems slow. On the machine of docs/toolcalls.md that is 40 ms
for 200 KB and 160 ms for 800 KB."""

from __future__ import annotations

import argparse
import itertools
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dfkeval.parsing.toolcall import ToolCallParser

OPENED = "<tool_call>\n<function=f>\n<parameter=a>\n"
CLOSED = "\n</parameter>\n</function>\n</tool_call>"
FRAGMENTS = (
    "<tool_call>", "</tool_call>", "<function=f>", "</function>", "<parameter=a>", "<parameter=t>", "</parameter>",
    "<parameter=b>", "<parameter=i>", "<function=", "<parameter=", "</param", "</ PARAMETER/>", "<parameter=a/>",
    "<parameter name='b'>", "<", "</", ">", "/>", "```", "```\n", "`", "~~~\n", "~", '"', '{"', "[", "{", "}", "]",
    "\\", "\\u00e9", ",", ":", "\n", "\r\n", " ", "x", "x\n", "5", "<think>", "</think>\n", "<|im_end|>",
    "</parameter1>", OPENED, CLOSED, "<tool_call>\n<function=f>\n", "\n</parameter>\n", "</function>\n</tool_call>",
    "<tool_call><function=f>", "</function></tool_call>", "<function=f></function>", '{"name": "f", "arguments": {',
    "}}", "<tool_call>{", "}</tool_call>", "Label: ", "None",
    f"{OPENED}x{CLOSED}\n", f"{OPENED}x{CLOSED}\n".replace("=a", "=i"), f"{OPENED}[1]{CLOSED}\n".replace("=a", "=t"),
    f"{OPENED}x{CLOSED}\n".replace("=f", "=h"), "<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n",
    '<tool_call>\n{"name": "f", "arguments": {"a": "x"}}\n</tool_call>\n', "</parameter>\n", "</param\n",
)  # fmt: skip
#: The limit, in plain scans.
LIMIT = 21.0
_TAG = re.compile(r"<[^<>]*+>")


def parsers() -> dict[str, ToolCallParser]:
    """Return the parsers by name."""
    types = {"a": "string", "b": "string", "t": "array", "i": "integer"}
    properties = {name: {"type": kind} for name, kind in types.items()}
    tools = [{"name": name, "parameters": {"type": "object", "properties": properties}} for name in "fg"]
    made = {mode: ToolCallParser(tools, mode=mode) for mode in ("strict", "lenient")}
    made |= {
        f"{mode}, JSON": ToolCallParser(tools, mode=mode, dialect="hermes") for mode in ("strict", "lenient")
    }
    made["no tools"] = ToolCallParser(mode="lenient")
    made["thinking"] = ToolCallParser(tools, mode="lenient", prefill="think")
    return made


def texts(parts: tuple[str, ...], size: int) -> Iterator[tuple[str, str]]:
    """Yield (name, text of about `size` characters) for each way to repeat `parts`."""
    unit = "".join(parts)
    count = size // len(unit)
    yield "repeated", unit * count
    yield "inside a value", OPENED + unit * count + CLOSED
    if len(parts) > 1:
        yield "one behind another", "".join(part * count for part in parts)
        yield "around the last", "".join(part * count for part in parts[:-1]) + parts[-1]


def seconds(run: Callable[[], object], passes: int = 1) -> float:
    """Return the CPU time of the best of `passes`."""
    best = float("inf")
    for _ in range(passes):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def in_pieces(parser: ToolCallParser, text: str) -> object:
    """Parse `text` in pieces of four characters."""
    stream = parser.stream()
    for at in range(0, len(text), 4):
        stream.feed(text[at : at + 4])
    return stream.close()


def plain_scan(size: int) -> float:
    """Return the seconds that one pass over as many characters takes."""
    text = "<parameter=a>" * (size // 13)
    return seconds(lambda: deque(_TAG.finditer(text), 0), 5)


def slow(
    text: str, limit: float, all_parsers: dict[str, ToolCallParser], rng: random.Random
) -> Iterator[tuple[str, str, float]]:
    """Yield (parser, way, seconds) of each reading of `text` over `limit` seconds, the best of three."""
    drawn = rng.choice(list(all_parsers))
    readings = {(name, "whole"): parser.parse for name, parser in all_parsers.items()}
    readings[drawn, "in pieces"] = partial(in_pieces, all_parsers[drawn])
    for (name, way), read in readings.items():
        once = partial(read, text)
        if seconds(once) > limit and (spent := seconds(once, 3)) > limit:
            yield name, way, spent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--parts", type=int, default=2, help="fragments in a unit")
    arguments.add_argument("--with-calls", action="store_true", help="only units that hold a whole call")
    arguments.add_argument("--size", type=int, default=200_000, help="characters of a text")
    arguments.add_argument(
        "--seconds", type=float, default=300.0, help="CPU time after which the search ends"
    )
    arguments.add_argument("--seed", type=int, default=0)
    chosen: Any = arguments.parse_args()
    tuples = list(itertools.product(FRAGMENTS, repeat=chosen.parts))
    if chosen.with_calls:
        tuples = [
            parts for parts in tuples if any(part.endswith(("call>\n", "function>\n")) for part in parts)
        ]
    rng = random.Random(chosen.seed)
    rng.shuffle(tuples)
    made, start, found, tried = parsers(), time.process_time(), 0, 0
    worst = 0.0
    for parts in tuples:
        if time.process_time() - start > chosen.seconds:
            break
        tried += 1
        scan = plain_scan(chosen.size)
        for shape, text in texts(parts, chosen.size):
            for name, way, spent in slow(text, LIMIT * scan, made, rng):
                found += 1
                worst = max(worst, spent / scan)
                measured = f"{spent * 1000:7.1f} ms ({spent / scan:4.1f} scans)"
                print(f"{measured} {name}, {way}, {shape}: {parts!r}", flush=True)
    print(f"{tried} of {len(tuples)} tuples: {found} readings over {LIMIT} plain scans (worst {worst:.1f})")


if __name__ == "__main__":
    main()
