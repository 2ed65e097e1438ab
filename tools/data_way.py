"""Count the files of ours that a row or an answer passes: `python -m tools.data_way [--files] [JOURNEY ...]`.

How it works: each journey runs on a few rows and on twice as many, after one run that imports everything. The data
pass a file if its functions are called more often for more rows; a run uses a file if any of its functions is
called. Options and start-up cost the same calls for any number of rows, so the data do not pass them. Only public
names are called, so an older tree is measured by the same script: set PYTHONPATH to it.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import dfkdata
import dfkeval
from dfktrain.demo import captions, posts

FEW = 12
TREE = Path(dfkdata.__file__ or "").parents[1]
ROOTS = tuple(str(TREE / package) for package in ("dfkdata", "dfkeval", "dfktrain"))

Run = Callable[[], Any]


def convert_csv(folder: Path, rows: int) -> Run:
    """Prepare a conversion of posts with pictures, from CSV to the messages layout."""
    raw = posts.write_posts(folder / "raw", count=rows, seed=1)
    return lambda: dfkdata.convert(
        raw, folder / "data", format="dfk_csv", schema="dfk_label", max_rejects="100%"
    )


def convert_jsonl(folder: Path, rows: int) -> Run:
    """Prepare a conversion of captions without pictures, from JSON Lines to the messages layout."""
    raw = captions.write_captions(folder / "raw", count=rows, seed=1)
    return lambda: dfkdata.convert(
        raw, folder / "data", format="captions", schema="caption", max_rejects="100%"
    )


def train(folder: Path, rows: int) -> Run:
    """Prepare a training of the built-in model, from the rows of a conversion to the saved adapter."""
    from dfktrain import TrainConfig
    from dfktrain import train as train_model

    convert_csv(folder, rows)()
    stage = {"name": "sft", "data": [str(folder / "data/train.jsonl")], "epochs": 1, "batch_size": 2}
    config = TrainConfig.model_validate({"model": {"name": "tiny"}, "stages": [stage]})
    ticks = itertools.count(1, 0.001)  # a page that is written every few seconds is then written once
    train_model.__globals__["train_on"].__kwdefaults__["clock"] = lambda: next(ticks)
    return lambda: train_model(config, folder / "out")


def text_answer(folder: Path, rows: int) -> Run:
    """Prepare the scoring of answers in marked text, from the text to the report."""
    return _answers(folder, convert_csv(folder, rows), "dfk_label", "labels")


def tool_call(folder: Path, rows: int) -> Run:
    """Prepare the scoring of answers in tool calls, from the text to the report."""
    return _answers(folder, convert_jsonl(folder, rows), "caption", "fields")


def _answers(folder: Path, convert: Run, schema: str, metric: str) -> Run:
    convert()
    data = folder / "data/train.jsonl"
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({"id": row["id"], "text": _gold_text(row["messages"][-1])}) for row in rows]
    (folder / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    backend = {"kind": "scripted", "completions": str(folder / "answers.jsonl")}
    config = {"data": str(data), "schema": schema, "backend": backend, "metrics": [metric], "resamples": 200}
    (folder / "eval.yaml").write_text(json.dumps(config), encoding="utf-8")
    return lambda: dfkeval.evaluate(folder / "eval.yaml", folder / "run")


def _gold_text(message: dict[str, Any]) -> str:
    if not message.get("tool_calls"):
        return str(message["content"])
    call = message["tool_calls"][0]["function"]
    return dfkeval.write_tool_call(call["name"], call["arguments"])


JOURNEYS = (convert_csv, convert_jsonl, train, text_answer, tool_call)


def calls(journey: Callable[[Path, int], Run], rows: int) -> Counter[str]:
    """Return how often functions of each of our files are called while `journey` handles `rows` rows."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOTS) and not code.co_name.startswith("<"):
            counts[str(Path(code.co_filename).relative_to(TREE))] += 1

    with tempfile.TemporaryDirectory() as folder:
        run = journey(Path(folder), rows)
        threading.setprofile(count)
        sys.setprofile(count)
        try:
            run()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return counts


def main() -> None:
    """Print the counts of the journeys named on the command line, or of all."""
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    for journey in JOURNEYS:
        if names and journey.__name__ not in names:
            continue
        calls(journey, FEW)
        few, many = calls(journey, FEW), calls(journey, 2 * FEW)
        passed = sorted(file for file in many if many[file] > few[file])
        sys.stdout.write(f"{journey.__name__}: the data pass {len(passed)} files, the run uses {len(many)}\n")
        if "--files" in sys.argv:
            sys.stdout.writelines(f"  {'*' if file in passed else ' '} {file}\n" for file in sorted(many))


if __name__ == "__main__":
    main()
