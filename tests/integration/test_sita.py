"""SITA's splits, repeated in its own order; expected orders were returned by its published loaders.

`python -m tools.sita_golden CHECKOUT` made them; commit and packages stand in tests/golden/sita/source.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.common.errors import ConfigError
from tests.helpers.places import GOLDEN
from tests.helpers.rows import caption, rows_of, write
from tools import sita_golden

SPLITS = json.loads((GOLDEN / "sita" / "splits.json").read_text(encoding="utf-8"))


def ours(case: dict[str, Any], folder: Path, out: Path) -> None:
    """Convert the table of a case with the options that mean the same."""
    options = case["options"]
    train = sita_golden.table(folder, "train", case["loader"])
    extra: dict[str, Any] = {}
    if options.get("fixed"):
        extra["validation_file"] = sita_golden.table(folder, "val", case["loader"], sita_golden.ROWS // 2)
    else:
        extra["validation"] = round(1 - options["train_ratio"], 12)
    names = {"subsample_ratio": "subsample", "max_samples": "max_samples", "seed": "seed"}
    extra |= {name: options[key] for key, name in names.items() if key in options}
    convert(train, out, format=case["format"], split="sita", images=folder, **extra)


@pytest.mark.parametrize("case", SPLITS, ids=lambda case: f"{case['loader']}-{case['options']}")
def test_a_split_has_the_rows_and_the_order_of_sita_s_loader(case: dict[str, Any], tmp_path: Path) -> None:
    ours(case, tmp_path / "in", tmp_path / "out")
    for split in ("train", "validation"):
        texts = [row["messages"][-1]["content"][0]["text"] for row in rows_of(tmp_path / "out", split)]
        assert [int(text.rsplit(" ", 1)[-1]) for text in texts] == case[split], split


def test_the_manifest_counts_the_labels_of_the_rows_that_each_split_got(tmp_path: Path) -> None:
    ours(SPLITS[1], tmp_path / "in", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    counted = manifest["labels"]["label"]
    for split in ("train", "validation"):
        assert sum(counted[split].values()) == len(SPLITS[1][split])
    assert sum(counted["raw"].values()) == 31


def test_split_sita_refuses_a_split_that_sita_does_not_have(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(10)])
    with pytest.raises(ConfigError, match="training and validation only"):
        convert(source, tmp_path / "out", format="captions", split="sita", test_file=source)
