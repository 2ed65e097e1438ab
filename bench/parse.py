"""Measure how fast and how right the tool-call parser is, beside `json.loads` and other parsers.

    python bench/parse.py [--only TABLE ...] [--peers FOLDER] [--json OUT]

FOLDER holds wheels of mlx-lm and sglang (`pip download --no-deps mlx-lm sglang -d FOLDER`). Only their parser
modules are extracted, into a temporary folder, and what they import beyond the standard library and `regex`
is stubbed. Times are CPU time of one process, the best of several passes; ratios are measured in one run.
Valid documents come from the JSON-Schema-Test-Suite that lies beside the tests."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import sys
import tempfile
import time
import types
import zipfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from dfkeval.testing.conformance import cases, drive, explain
from dfkeval.testing.roundtrip import TOOLS, random_calls, verdict

#: The official suite, in $DFK_SUITES or beside the repository, as the tests look for it.
SUITES = Path(os.environ.get("DFK_SUITES") or Path(__file__).parents[2] / "shared/suites")
SUITE = SUITES / "JSON-Schema-Test-Suite/tests/draft2020-12"
WORDS = "a small brown dog runs on the wet sand while two children in red coats watch the waves".split()
CAPTION = {
    "type": "object",
    "properties": {
        "subjects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "attributes": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["name"],
            },
        },
        "actions": {"type": "array", "items": {"type": "string"}},
        "setting": {"type": "string"},
    },
    "required": ["subjects", "actions", "setting"],
}
CAPTION_TOOLS = [
    {
        "type": "function",
        "function": {"name": "emit_caption_schema", "description": "", "parameters": CAPTION},
    }
]


def best(run: Callable[[], object], passes: int = 5) -> float:
    """Return the seconds of CPU time of the best of `passes`."""
    times = []
    for _ in range(passes):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def each(run: Callable[[Any], object], items: list[Any]) -> None:
    """Call `run` on each item and drop the results, so that the garbage collector has nothing to walk."""
    deque(map(run, items), maxlen=0)


def captions(count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return texts of calls of about 420 characters, and their two list arguments as JSON."""
    rng = random.Random(0)

    def phrase(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    texts, lists = [], []
    for _ in range(count):
        subjects = [
            {"name": phrase(2), "attributes": [phrase(1), phrase(2)]} for _ in range(rng.choice((2, 2, 3)))
        ]
        answer = {
            "subjects": subjects,
            "actions": [phrase(4) for _ in range(rng.choice((1, 2, 3)))],
            "setting": phrase(8),
        }
        texts.append(write_tool_call("emit_caption_schema", answer))
        lists.append((json.dumps(subjects), json.dumps(answer["actions"])))
    return texts, lists


# --- other parsers -----------------------------------------------------------------------------------------


def peers(folder: Path | None) -> dict[str, Callable[[str], object]]:
    """Return name -> function of one text, for the parsers whose wheels lie in `folder`."""
    parsers: dict[str, Callable[[str], object]] = {}
    for name, load in (("mlx-lm", _mlx), ("sglang", _sglang)):
        wheels = sorted(folder.glob(f"{name.replace('-', '_')}-*.whl")) if folder else []
        if not wheels:
            continue
        try:
            parsers[wheels[-1].name.split("-py3")[0].split("-cp")[0]] = load(wheels[-1])
        except (ImportError, AttributeError, KeyError, TypeError) as bad:
            print(f"{name}: its parser cannot be taken out of the wheel: {type(bad).__name__}: {bad}")
    return parsers


def _extract(wheel: Path, prefix: str) -> None:
    folder = tempfile.mkdtemp()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.startswith(prefix) and member.endswith(".py"):
                archive.extract(member, folder)
    sys.path.insert(0, folder)


def _mlx(wheel: Path) -> Callable[[str], object]:
    _extract(wheel, "mlx_lm/tool_parsers/")
    module = importlib.import_module("mlx_lm.tool_parsers.qwen3_coder")
    opened, closed = len("<tool_call>"), len("</tool_call>")

    def parse(text: str) -> object:
        return module.parse_tool_call(text[opened:-closed], CAPTION_TOOLS)

    return parse


class _Stub(types.ModuleType):
    """A module in which every name exists; it stands for what a parser imports and does not use."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: self.__dict__.update(kwargs)})


class _StubFinder:
    """Finds a stub for each module of a package that was not taken out of its wheel."""

    roots = ("sglang", "orjson", "partial_json_parser", "torch", "transformers", "fastapi", "starlette")

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> Any:
        if name.split(".", maxsplit=1)[0] not in cls.roots:
            return None
        return importlib.machinery.ModuleSpec(name, cls, is_package=True)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: Any) -> types.ModuleType:
        return _Stub(spec.name)

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        return None


def _sglang(wheel: Path) -> Callable[[str], object]:
    _extract(wheel, "sglang/srt/function_call/")
    sys.meta_path.append(_StubFinder)
    module = importlib.import_module("sglang.srt.function_call.qwen3_coder_detector")
    detector = module.Qwen3CoderDetector()
    function = types.SimpleNamespace(**CAPTION_TOOLS[0]["function"])
    tools = [types.SimpleNamespace(type="function", function=function)]
    return lambda text: detector.detect_and_parse(text, tools)


# --- pathological texts ------------------------------------------------------------------------------------

HEAD, TAIL = "<tool_call>\n<function=f>\n<parameter=a>\n", "\n</parameter>\n</function>\n</tool_call>"
PATHOLOGICAL_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "t": {"type": "array"}},
            },
        },
    }
    for name in ("f", "a")
]


def pathological(size: int) -> dict[str, str]:
    """Name -> a text of about `size` characters that breaks parsers which look back or look ahead without
    end."""

    def fill(unit: str) -> str:
        return unit * (size // len(unit))

    return {
        "<parameter= repeated": HEAD + fill("<parameter="),
        "<parameter=a> repeated": HEAD + fill("<parameter=a>"),
        "<tool_call> repeated": fill("<tool_call>"),
        "<function=a> repeated": fill("<function=a>"),
        "< flood in a value": HEAD + fill("<") + TAIL,
        "> flood in a value": HEAD + fill(">") + TAIL,
        "blanks in a value": HEAD + fill(" ") + TAIL,
        "newlines in a value": HEAD + fill("\n") + TAIL,
        "</parameter> run": HEAD + fill("</parameter>") + TAIL,
        "many parameters": "<tool_call>\n<function=f>\n"
        + "".join(f"<parameter=p{i}>\nx\n</parameter>\n" for i in range(size // 36))
        + "</function>\n</tool_call>",
        "many tiny calls": fill(HEAD + "x" + TAIL + "\n"),
        "HTML-like value": HEAD + fill("<div class='x'>a</div>") + TAIL,
        "plain value": HEAD + fill("lorem ipsum ") + TAIL,
        "fences": fill("```\na\n") + HEAD + "x" + TAIL,
        "open fences": fill("```a\n") + HEAD + "x" + TAIL,
        "backticks": fill("`a``b") + HEAD + "x" + TAIL,
        "fake ends": HEAD + fill("x\n</parameter>\n</function>\n") + TAIL,
        "fake ends of calls": HEAD + "x" + fill(TAIL + "\nz"),
        "calls never closed": fill(HEAD),
        "calls opened in prose": fill("<tool_call><function "),
        "nested calls": fill(HEAD)[: size // 2] + fill(TAIL)[: size // 2],
        "JSON never closed": "<tool_call>\n<function=f>\n" + fill("<parameter=t>\n[[[["),
        "drifted closers": HEAD + fill("\n</parameter1>"),
        "orphan closers": fill(TAIL),
    }


def streamed(parser: ToolCallParser, text: str) -> object:
    """Parse the text in pieces of four characters."""
    stream = parser.stream()
    for at in range(0, len(text), 4):
        stream.feed(text[at : at + 4])
    return stream.close()


# --- the tables --------------------------------------------------------------------------------------------


def throughput(folder: Path | None) -> dict[str, Any]:
    texts, lists = captions(10_000)
    parser = ToolCallParser(CAPTION_TOOLS)
    assert all(parser.parse(text).ok for text in texts)
    runs: dict[str, Callable[[], object]] = {
        "json.loads of the two lists": lambda: each(
            lambda pair: (json.loads(pair[0]), json.loads(pair[1])), lists
        ),
        "dfkeval (typed and validated)": lambda: each(parser.parse, texts),
    }
    for name, parse in peers(folder).items():
        runs[name] = lambda parse=parse: each(parse, texts)
    seconds = {name: best(run) for name, run in runs.items()}
    ours = seconds["dfkeval (typed and validated)"]
    print(f"\n10,000 caption calls, mean {sum(map(len, texts)) / len(texts):.0f} characters")
    for name, spent in seconds.items():
        print(f"  {name:32s} {spent * 100:7.1f} µs/call   {spent / ours:5.2f} x ours")
    return {name: spent / 10_000 for name, spent in seconds.items()}


def documents() -> dict[str, float]:
    """Valid documents of the official JSON Schema suite, each as the arguments of a call of its own tool."""
    parsers, texts = [], []
    files = sorted(SUITE.glob("*.json"))
    if not files:
        print(f"\nValid documents: {SUITE} is not here")
        return {}
    for path in files:
        for group in json.loads(path.read_text(encoding="utf-8")):
            for test in group["tests"]:
                if not (
                    test["valid"] and isinstance(test["data"], dict) and isinstance(group["schema"], dict)
                ):
                    continue
                try:
                    parser = ToolCallParser([{"name": "f", "parameters": group["schema"]}])
                    text = write_tool_call("f", test["data"])
                    if parser.parse(text).calls == []:
                        continue
                except (ValueError, TypeError):
                    continue
                parsers.append(parser)
                texts.append(text)
    spent = best(lambda: [parser.parse(text) for parser, text in zip(parsers * 20, texts * 20, strict=True)])
    made = {"documents": float(len(texts)), "seconds": spent / len(texts) / 20}
    print(f"\n{len(texts)} valid documents of the official suite: {made['seconds'] * 1e6:.1f} µs each")
    return made


def big_values() -> dict[str, float]:
    parser = ToolCallParser(CAPTION_TOOLS)
    base = {"subjects": [], "actions": ["x"], "setting": "s"}
    values = {
        "1 MB string": {**base, "setting": "lorem ipsum dolor " * 56_000},
        "1 MB array of strings": {**base, "actions": ["a dog runs on the wet sand"] * 33_000},
        "1 MB array of objects": {
            **base,
            "subjects": [{"name": f"n{i}", "attributes": ["a", "b"]} for i in range(22_000)],
        },
        "1 MB HTML-like string": {**base, "setting": "<div class='a'><p>hello</p></div>" * 30_000},
    }
    print("\nOne big argument")
    made = {}
    for name, answer in values.items():
        text = write_tool_call("emit_caption_schema", answer)
        made[name] = best(lambda text=text: parser.parse(text)) * 1000
        lists = [json.dumps(answer[key]) for key in ("subjects", "actions")]
        floor = best(lambda lists=lists: [json.loads(part) for part in lists]) * 1000
        print(f"  {name:24s} {made[name]:7.2f} ms   (json.loads of its lists {floor:6.2f} ms)")
    return made


def slopes() -> dict[str, list[float]]:
    parser = ToolCallParser(PATHOLOGICAL_TOOLS, mode="lenient")
    print("\nPathological texts, lenient: ms for 200 KB and 800 KB, whole and in pieces of four characters")
    small, large = pathological(200_000), pathological(800_000)
    made = {}
    for name in small:
        row = [best(lambda t=t: parser.parse(t), 3) * 1000 for t in (small[name], large[name])]
        row += [best(lambda t=t: streamed(parser, t), 2) * 1000 for t in (small[name], large[name])]
        made[name] = row
        late = " over the bar" if row[0] > 40 or row[1] > 160 or row[2] > 40 or row[3] > 160 else ""
        print(f"  {name:26s} {row[0]:7.1f} {row[1]:7.1f}   {row[2]:7.1f} {row[3]:7.1f}{late}")
    return made


def fidelity(samples: int = 1500) -> dict[str, Any]:
    print(f"\nRound trip, strict, {samples} texts a cell: exact / flagged / null spelled / silently wrong, %")
    made = {}
    for dialect in ("qwen3.5", "qwen3.6"):
        parser = ToolCallParser(TOOLS, dialect=dialect)
        for level in (0, 1, 2, 3):
            rng = random.Random(f"{dialect} {level}")
            counts = dict.fromkeys(("exact", "flagged", "null", "wrong"), 0)
            for _ in range(samples):
                calls = random_calls(rng, level)
                text = "\n".join(write_tool_call(name, arguments, dialect) for name, arguments in calls)
                counts[verdict(calls, parser.parse(text))] += 1
            made[f"{dialect} L{level}"] = {name: 100 * count / samples for name, count in counts.items()}
            print(
                f"  {dialect} L{level}   "
                + " / ".join(f"{value:6.2f}" for value in made[f"{dialect} L{level}"].values())
            )
    return made


def conformance() -> dict[str, str]:
    rows = list(cases())
    made = {}
    for mode in ("lenient", "strict"):
        good = sum(explain(case, drive(case, mode), mode) is None for case in rows)
        made[mode] = f"{good}/{len(rows)}"
        print(f"conformance, {mode}: {made[mode]}")
    return made


def main() -> None:
    tables: dict[str, Callable[[argparse.Namespace], Any]] = {
        "pathological_ms": lambda chosen: slopes(),  # first, while no other parser's modules lie on the heap
        "conformance": lambda chosen: conformance(),
        "seconds_per_call": lambda chosen: throughput(chosen.peers),
        "documents": lambda chosen: documents(),
        "big_ms": lambda chosen: big_values(),
        "fidelity_percent": lambda chosen: fidelity(),
    }
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--only", nargs="+", choices=tables, help="these tables and no others")
    arguments.add_argument("--peers", type=Path, help="folder with wheels of mlx-lm and sglang")
    arguments.add_argument("--json", type=Path, help="write the numbers here")
    chosen = arguments.parse_args()
    made = {name: table(chosen) for name, table in tables.items() if not chosen.only or name in chosen.only}
    if chosen.json:
        chosen.json.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
