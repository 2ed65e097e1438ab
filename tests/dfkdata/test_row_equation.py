"""No row is lost in any format, whatever mix of good and broken rows comes in whatever order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from golden import GOLDEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfkdata import convert, plugins

FILES = {
    name: path
    for name in plugins.names("dfkdata.formats")
    for path in sorted((GOLDEN / "formats" / name).glob("*"))
    if path.suffix in (".jsonl", ".csv")
    and path.name.count(".") == 1
    and path.stem in ("input", "images", "lines")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    shutil.copytree(GOLDEN / "formats" / "images", path / "images")
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("to", ["messages", "swift"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_in_are_rows_out_and_rows_set_aside(
    name: str, to: str, folder: Path, data: st.DataObject
) -> None:
    path = FILES[name]
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    head, body = (lines[:1], lines[1:]) if path.suffix == ".csv" else ([], lines)
    body = [line for line in body if line.strip() and line.count('"') % 2 == 0] if head else body
    chosen = data.draw(st.lists(st.sampled_from(body), max_size=25))
    source = folder / f"mixed{path.suffix}"
    source.write_text("\n".join([*head, *chosen]) + "\n", encoding="utf-8")
    out = folder / "out"
    seed, limit = data.draw(st.integers(0, 9)), data.draw(st.sampled_from([None, 3]))
    summary = convert(source, out, format=name, to=to, test=0.3, seed=seed, limit=limit, overwrite=True)
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
