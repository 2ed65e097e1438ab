"""Lists of files are read from tables as from JSON, in every format that takes several."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkdata.rows.file_names import file_names
from dfkdata.rows.record import RowError
from tests.helpers.pictures import KINDS

TURNS = json.dumps(
    [{"role": "user", "content": "<image><image>Apa?"}, {"role": "assistant", "content": "Ini."}]
)
PLAIN = TURNS.replace("<image>", "")
FORMATS: dict[str, dict[str, str]] = {
    "alpaca": {"instruction": "Apa?", "output": "Ini."},
    "vqa": {"question": "Apa?", "answer": "Ini."},
    "messages": {"messages": PLAIN},
    "swift": {"messages": TURNS},
    "query_response": {"query": "Apa?", "response": "Ini."},
    "prompt_completion": {"prompt": "Apa?", "completion": "Ini."},
}
CELLS = ["['a.png', 'b.png']", '["a.png", "b.png"]', "[a.png, b.png]", " ['a.png','b.png',] "]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_list_in_a_cell_is_a_list_of_pictures(
    format: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(KINDS["png"])
    row: dict[str, Any] = FORMATS[format] | {"images": cell}
    with Path("in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    done = convert("in.csv", "out", format=format, validation=0)
    assert not done.codes
    (written,) = load_rows("out/train.jsonl")
    assert [Path(image).name for image in written["images"]] == ["a.png", "b.png"]


def test_names_in_brackets_stay_names_and_what_is_no_list_is_named() -> None:
    assert file_names("[1].png", "images") == ("[1].png",)
    assert file_names("[]", "images") == file_names(None, "images") == file_names([], "images") == ()
    for value in ("['a.png', 3]", 5, ["a.png", 5], ""):
        with pytest.raises(RowError) as caught:
            file_names(value, "images")
        assert caught.value.code == "IMG_LIST"
