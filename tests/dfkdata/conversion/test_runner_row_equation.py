"""No row is lost in any format, whatever mix of good and broken rows comes in whatever order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfkdata import convert
from dfkdata.common import plugins
from tests.helpers.golden import GOLDEN

FILES = {
    name: path
    for name in plugins.names("dfkdata.formats")
    for path in sorted((GOLDEN / "formats" / name).glob("*"))
    if path.suffix in (".jsonl", ".csv")
    and path.name.count(".") == 1
    and path.stem in ("input", "images", "lines")
}


EXPORTS = plugins.names("dfkdata.exports")
HOSTILE = [
    None,
    7,
    True,
    "",
    "<image>",
    "<video>",
    "\0",
    [],
    {},
    [None],
    {"type": "image"},
    "[1]",
    "tool",
    "x" * 999,
]


def _hurt(line: str, seed: int) -> str:
    """The row with one of its values, at any depth, replaced by one that does not belong there."""
    pick = Random(seed)
    try:
        node = row = json.loads(line)
    except ValueError:
        return ""
    while isinstance(node, dict | list) and node:
        step = pick.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[step], dict | list) or not node[step] or pick.random() < 0.2:
            node[step] = pick.choice(HOSTILE)
            break
        node = node[step]
    return json.dumps(row)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    shutil.copytree(GOLDEN / "formats" / "images", path / "images")
    return path


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_in_are_rows_out_and_rows_set_aside(name: str, folder: Path, data: st.DataObject) -> None:
    path, to = FILES[name], data.draw(st.sampled_from(EXPORTS))
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    head, body = (lines[:1], lines[1:]) if path.suffix == ".csv" else ([], lines)
    if head:
        body = [line for line in body if line.strip() and line.count('"') % 2 == 0]
    else:
        body += [line for line in map(_hurt, body, range(len(body))) if line]
    chosen = data.draw(st.lists(st.sampled_from(body), max_size=25))
    source = folder / f"mixed{path.suffix}"
    source.write_text("\n".join([*head, *chosen]) + "\n", encoding="utf-8")
    out = folder / "out"
    seed, limit = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([None, 3]))
    summary = convert(
        source, out, format=name, to=to, test=0.3, seed=seed, limit=limit, overwrite=True, keep_empty=True
    )
    rows = summary.rows
    assert rows["in"] == len([line for line in chosen if line.strip()])
    assert rows["in"] == rows["out"] + rows["quarantined"] + rows["duplicates"] + rows["left_out"]
    written = {
        part: (out / f"{part}.jsonl").read_text().splitlines() for part in ("quarantine", "duplicates")
    }
    assert (len(written["quarantine"]), len(written["duplicates"])) == (
        rows["quarantined"],
        rows["duplicates"],
    )
    assert sum(summary.splits.values()) == rows["out"]
    assert all(json.loads(line)["code"] for line in written["quarantine"])


def test_a_copy_of_a_row_whose_key_was_taken_is_no_copy_of_a_written_row(tmp_path: Path) -> None:
    def row(key: str | None, asked: str, split: str) -> str:
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "So."}]
        return json.dumps({"messages": turns, "split": split} | ({"id": key} if key else {})) + "\n"

    lines = [row("a", "How?", "train"), row("a", "Why?", "train")]
    lines += [row("b", "Why?", "test"), row(None, "Why?", "train")]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    done = convert(tmp_path / "in.jsonl", tmp_path / "out", format="messages", split_column="split")
    assert done.rows == {"in": 4, "out": 2, "quarantined": 1, "duplicates": 1, "left_out": 0}
    assert (done.splits["train"], done.splits["test"]) == (1, 1)
    copies = [json.loads(line) for line in (tmp_path / "out" / "duplicates.jsonl").read_text().splitlines()]
    assert [copy["source"] for copy in copies] == ["in.jsonl:4"]
