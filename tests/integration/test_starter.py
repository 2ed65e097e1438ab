"""`dfktrain init starter`: an own CSV becomes a report, with relative paths, through the commands alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from dfkdata.cli import app as dfkdata_app
from dfkeval.cli import app as dfkeval_app
from dfktrain.cli import app as dfktrain_app
from dfktrain.cli.init import EXAMPLE_POSTS

LABELS = ("netral", "disinformasi", "fitnah", "ujaran kebencian")
APPS = {"dfkdata": dfkdata_app.app, "dfkeval": dfkeval_app.app, "dfktrain": dfktrain_app.app}

#: Two steps, two test rows of eight tokens: the way, not the numbers.
SHORT = (
    "--set", "stages.0.epochs=null", "--set", "stages.0.steps=2", "--set", "stages.0.batch_size=2",
    "--set", 'evaluate.set=["metrics=[validity, labels, rouge]", "limit=2", "sampling.max_new_tokens=8"]',
)  # fmt: skip


def ran(command: str, *words: str) -> str:
    """Run a command in this process; it must end with 0."""
    done = CliRunner().invoke(APPS[command], list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def own_posts(folder: Path, rows: int = 40) -> None:
    """An own CSV with pictures in a folder beside it."""
    (folder / "foto").mkdir(parents=True)
    with (folder / "kiriman.csv").open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file)
        write.writerow(["title", "link", "text", "img_path", "label", "analisis"])
        for at in range(rows):
            Image.new("RGB", (48, 48), (at * 6, 255 - at * 6, at * 5)).save(folder / f"foto/{at}.png")
            link, label = f"https://contoh.example/{at}", LABELS[at % 4]
            write.writerow(
                [f"Judul {at}", link, f"Isi {at}", f"foto/{at}.png", label, f"Analisis nomor {at}."]
            )


def test_an_own_csv_becomes_a_report_from_another_folder(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("transformers")
    own_posts(tmp_path / "proyek")
    monkeypatch.chdir(tmp_path)
    ran("dfkdata", "convert", "proyek/kiriman.csv", "--from", "dfk_csv", "--to", "messages",
        "--out", "proyek/data", "--test", "0.2")  # fmt: skip
    assert "dfktrain run latih.yaml" in ran("dfktrain", "init", "starter", "--out", "proyek/latih.yaml")
    assert "stage sft" in ran("dfktrain", "check", "proyek/latih.yaml")
    said = ran("dfktrain", "run", "proyek/latih.yaml", "--out", "proyek/runs/starter", *SHORT)
    assert "base -> tuned, 2 common rows" in said and "labels.accuracy" in said
    assert "report: proyek/runs/starter/evaluation/report.html" in said
    assert (tmp_path / "proyek/runs/starter/evaluation/report.html").is_file()

    ran("dfkeval", "init", "starter", "--out", "proyek/nilai.yaml")
    scored = ran("dfkeval", "run", "proyek/nilai.yaml", "--out", "proyek/runs/again",
                 "--set", "limit=2", "--set", "sampling.max_new_tokens=8")  # fmt: skip
    assert "\nvalidity.schema_valid " in scored


def test_init_writes_sample_posts_that_convert_with_a_reject_of_each_kind(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "sample posts: posts/posts.csv" in ran("dfktrain", "init", "starter", "--example", "posts")
    ran("dfkdata", "convert", "posts/posts.csv", "--from", "dfk_csv", "--to", "messages", "--out", "data",
        "--test", "0.2", "--max-rejects", "5")  # fmt: skip
    rows = sum(len((tmp_path / f"data/{split}.jsonl").read_text().splitlines())
               for split in ("train", "validation", "test"))  # fmt: skip
    assert rows == EXAMPLE_POSTS
    assert len((tmp_path / "data/quarantine.jsonl").read_text().splitlines()) == 5


def test_an_example_overwrites_nothing_and_needs_a_preset(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "posts").mkdir()
    done = CliRunner().invoke(dfktrain_app.app, ["init", "starter", "--example", "posts"])
    assert done.exit_code != 0 and "is there already" in str(done.exception)
    assert not (tmp_path / "starter.yaml").exists()
    done = CliRunner().invoke(dfktrain_app.app, ["init", "--example", "posts"])
    assert "goes with a preset" in str(done.exception)
