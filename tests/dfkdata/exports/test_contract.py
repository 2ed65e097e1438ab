"""The contract of every training layout: a new file in `dfkdata/exports` is tested because it exists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, exports
from dfkdata.common import plugins
from dfkdata.exports import bare
from dfkdata.rows.record import RowError
from tests.helpers.examples import shown_member
from tests.helpers.golden import GOLDEN, check

EXPORTS = plugins.names("dfkdata.exports")
INPUT = GOLDEN / "exports" / "input.jsonl"
CANONICAL = [
    json.loads(line)
    for path in sorted((GOLDEN / "formats").glob("*/*.train.jsonl"))
    for line in path.read_text().splitlines()
]


def accepted(name: str, row: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return plugins.load("dfkdata.exports", name).row(json.loads(json.dumps(row)))
    except RowError:
        return None


@pytest.mark.parametrize("name", EXPORTS)
def test_a_layout_writes_the_golden_rows(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "in" / "images")
    source = shutil.copy(INPUT, tmp_path / "in" / "input.jsonl")
    convert(source, tmp_path / "out", format="messages", to=name, validation=0)
    for part in ("train", "quarantine"):
        check((tmp_path / "out" / f"{part}.jsonl").read_bytes(), GOLDEN / "exports" / f"{name}.{part}.jsonl")


@pytest.mark.parametrize("name", EXPORTS)
def test_a_layout_round_trips_every_row_that_it_accepts(name: str) -> None:
    module = plugins.load("dfkdata.exports", name)
    written = [(row, accepted(name, row)) for row in CANONICAL]
    assert sum(found is not None for _, found in written) > len(CANONICAL) * 0.8
    for row, found in written:
        if found is None:
            continue
        again = json.loads(json.dumps(found))
        assert bare(module.inverse(again)) == bare(row)
        assert module.row(module.inverse(json.loads(json.dumps(found)))) == found


@pytest.mark.parametrize("name", EXPORTS)
def test_a_layout_check_passes_what_the_layout_wrote(name: str) -> None:
    module = plugins.load("dfkdata.exports", name)
    for row in CANONICAL:
        if (found := accepted(name, row)) is not None:
            module.check(found)


@pytest.mark.parametrize("name", ["swift", "sharegpt"])
def test_a_literal_image_tag_is_refused_and_never_a_picture(name: str) -> None:
    row = {
        "id": "1",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "write <image> here"}]}],
    }
    row |= {"images": [], "meta": {}}
    with pytest.raises(RowError) as fault:
        plugins.load("dfkdata.exports", name).row(row)
    assert fault.value.code == "IMG_LITERAL"


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


BROKEN = [
    ("swift", {"messages": [turn("user", "<image>x"), turn("assistant", "y")]}, "IMG_COUNT"),
    (
        "swift",
        {"messages": [turn("user", "x"), turn("assistant", "<image>")], "images": ["a"]},
        "IMG_POSITION",
    ),
    ("swift", {"messages": [turn("user", [{"type": "text", "text": "x"}])]}, "LAYOUT_CANNOT"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "x"}]}, "ROLE_ORDER"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "x"}]}, "ROLE_ORDER"),
    ("openai", {"messages": [turn("tool", "x", tool_call_id="c")]}, "ROLE_ORDER"),
    ("openai", {"messages": [turn("assistant", [{"type": "image_url"}])]}, "IMG_POSITION"),
    (
        "openai",
        {"messages": [turn("assistant", None, tool_calls=[{"id": "c", "function": {"arguments": {}}}])]},
        "TOOL_ARGS_NOT_OBJECT",
    ),
    ("prompt_completion", {"prompt": [], "completion": [turn("assistant", [])]}, "LAYOUT_CANNOT"),
]


@pytest.mark.parametrize(("name", "row", "code"), BROKEN)
def test_a_layout_check_finds_a_row_that_breaks_its_rules(name: str, row: dict[str, Any], code: str) -> None:
    with pytest.raises(RowError) as fault:
        plugins.load("dfkdata.exports", name).check(row)
    assert fault.value.code == code


def test_sharegpt_declares_its_files(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "formats" / "images", tmp_path / "in" / "images")
    source = shutil.copy(INPUT, tmp_path / "in" / "input.jsonl")
    convert(source, tmp_path / "out", format="messages", to="sharegpt", validation=0)
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert info["dfk_train"]["file_name"] == "train.jsonl"
    first = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert info["dfk_train"]["columns"]["messages"] in first


def test_the_member_in_the_docstring_keeps_the_contract() -> None:
    member = shown_member(exports)
    for row in CANONICAL:
        written = member.row(row)
        member.check(written)
        assert bare(member.inverse(written)) == bare(row)
    with pytest.raises(RowError, match="a row without turns"):
        member.check({"turns": []})
