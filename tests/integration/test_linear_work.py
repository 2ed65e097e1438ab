"""Inputs of one shape and four times the size take four times the work, counted in lines of Python, not seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.common.errors import DfkError
from dfkdata.common.yaml_loader import parse


def _csv(folder: Path, size: int) -> None:
    names = ["caption", *(f"c{at}" for at in range(size))]
    (folder / "a.csv").write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    convert(folder / "a.csv", folder / "out", format="dfk_csv", to="messages")


def _json(keys: Callable[[int], dict[str, Any]]) -> Callable[[Path, int], None]:
    def work(folder: Path, size: int) -> None:
        row = {"instruction": "Apa?", "input": "", "output": "Itu."} | keys(size)
        (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
        convert(folder / "a.jsonl", folder / "out", format="alpaca", to="messages")

    return work


def _nested(size: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(size // 10):
        value = [value]
    return {"x": value}


def _yaml(text: Callable[[int], str]) -> Callable[[Path, int], None]:
    return lambda folder, size: parse(text(size), "c.yaml") and None


KINDS = {
    "columns of a CSV": _csv,
    "keys of an object": _json(lambda size: {f"k{at}": at for at in range(size)}),
    "a long key": _json(lambda size: {"k" * 100 * size: 1}),
    "nesting": _json(_nested),
    "keys of a YAML file": _yaml(lambda size: "".join(f"k{at}: {at}\n" for at in range(size))),
    "a long key of a YAML file": _yaml(lambda size: f"{'k' * size}: 1\n"),
}


def counted(work: Callable[[Path, int], None], folder: Path, size: int) -> int:
    """Return how many lines of Python the work takes."""
    folder.mkdir()
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(folder, size)
    except DfkError:
        pass  # refused; what that took counts all the same
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_four_times_the_size_is_four_times_the_work(kind: str, tmp_path: Path) -> None:
    counted(KINDS[kind], tmp_path / "warm", 10)
    small, large = (counted(KINDS[kind], tmp_path / str(size), size) for size in (300, 1200))
    assert large <= 5 * small, large / small
