"""The demo's data is what it says, and the demo goes the whole way."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from dfkdata import load_rows
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import DFK, caption
from dfktrain.demo import captions, posts, run, words


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for task in run.TASKS:
        task.write(folder / task.name)
    return folder


def _posts(raw: Path) -> list[dict[str, str]]:
    with (raw / "dfk" / "posts.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_enough_posts_in_the_raw_layout_with_every_label_and_alias(raw: Path) -> None:
    rows = _posts(raw)
    assert tuple(rows[0]) == posts.COLUMNS
    assert len(rows) >= 240
    spellings = {row["label"].lower() for row in rows if row["label"]}
    resolved = [DFK.resolve(spelling) for spelling in spellings]
    assert {found.label for found in resolved if found} == set(DFK.canonical)
    assert {"fakta", "non-dfk", "ujaran_kebencian", "disinformasi_dan_ujaran_kebencian"} <= spellings


def test_several_posts_share_a_link_and_pictures_are_real(raw: Path) -> None:
    rows = _posts(raw)
    assert max(Counter(row["link"] for row in rows).values()) >= 2
    for name in ("post_0000.jpg", "post_0001.png"):
        with Image.open(raw / "dfk" / "images" / name) as image:
            assert image.size == (posts.SIDE, posts.SIDE)
            image.load()


def test_neither_the_drawing_nor_the_text_alone_gives_the_label() -> None:
    rng = random.Random(0)
    made = [posts.make_post(rng) for _ in range(2000)]
    by_shape, by_kind = {}, {}
    for post in made:
        by_shape.setdefault(post.shape, set()).add(post.label)
        by_kind.setdefault(post.kind, set()).add(post.label)
    assert {"disinformasi", "fitnah", "ujaran kebencian"} == by_shape["segitiga"]
    assert all({"netral"} < labels for labels in by_kind.values())
    assert len({(post.shape, post.kind): post.label for post in made}) == 12
    assert all(
        len({p.label for p in made if (p.shape, p.kind) == pair}) == 1
        for pair in {(p.shape, p.kind) for p in made}
    )


def test_every_gold_caption_is_valid_and_said_by_its_caption(raw: Path) -> None:
    lines = (raw / "caption" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 400
    rng = random.Random(1)
    for _ in range(300):
        text, gold = captions.make_caption(rng)
        caption.Answer.model_validate(gold)
        said = text.split()
        for subject in gold["subjects"]:
            assert {subject["name"], *subject["attributes"]} <= set(said)
        assert (gold["setting"] == "indoor") == bool(set(said) & set(words.INDOOR))


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        posts.write_posts(tmp_path / name, count=12, seed=3)
        captions.write_captions(tmp_path / name, count=12, seed=3)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 15
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of a few rows and steps: the way, not the numbers."""
    pytest.importorskip("transformers")
    run.encoder_folder()
    monkeypatch.setattr(run, "STEPS", {3: (2, 2)})
    monkeypatch.setattr(run, "POSTS", 24)
    monkeypatch.setattr(run, "CAPTIONS", 24)
    small = [
        run.dataclasses.replace(task, max_new_tokens=8, training=task.training | {"batch_size": 2})
        for task in run.TASKS
    ]
    monkeypatch.setattr(run, "TASKS", tuple(small))
    monkeypatch.setattr(run, "MAX_REJECTS", "40%")


def test_the_demo_goes_the_whole_way_and_leaves_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _small(monkeypatch)
    run.demo(tmp_path / "out", 3)
    out = tmp_path / "out"
    for task in run.TASKS:
        for name in ("train", "validation", "test", "quarantine", "duplicates"):
            assert (out / "data" / task.name / f"{name}.jsonl").is_file()
        assert (out / "train" / task.name / "adapter" / "dfk.json").is_file()
        for when in ("before", "after"):
            summary = json.loads((out / "runs" / f"{task.name}-{when}" / "summary.json").read_text())
            assert summary["n"] == len(list(load_rows(out / "data" / task.name / "test.jsonl")))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image/" in page
    assert "<polyline" in page
    printed = capsys.readouterr().out
    assert "LABEL_UNKNOWN" in printed
    assert "\nlabels.accuracy " in printed


def test_the_demo_refuses_a_folder_with_something_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        run.demo(tmp_path, 3)


def test_unknown_minutes_name_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of 1, 2, 3"):
        run.demo(tmp_path, 4)


@pytest.mark.slow
def test_the_tuned_model_reaches_the_bars_and_every_difference_is_above_zero(tmp_path: Path) -> None:
    from dfkeval import compare

    run.demo(tmp_path / "out", 3)
    for task in run.TASKS:
        found = compare(
            tmp_path / "out/runs" / f"{task.name}-before", tmp_path / "out/runs" / f"{task.name}-after"
        )
        assert found.n >= 60
        assert all((found.differences[name].low or 0) > 0 for name in task.shown)
        after = {name: found.differences[name].b or 0 for name in task.shown}
        assert after["validity.schema_valid"] >= 0.95
        assert after["validity.non_empty"] >= 0.95
        assert after.get("labels.accuracy", 1) >= 0.80
        assert after.get("fields.f1", 1) >= 0.70
