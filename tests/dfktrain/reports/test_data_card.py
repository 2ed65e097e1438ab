"""The page about a run's data shows rows as the run's model sees them, byte for byte."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.rendering import chat_template, render_sample
from dfktrain import tiny
from tests.helpers.commands import called
from tests.helpers.pictures import KINDS

ROWS: list[dict[str, Any]] = [
    {"question": "Apa <ini>?", "image": "a.png", "answer": "Garis & titik."},
    {"question": "Apa warnanya?", "image": "a.png", "answer": "Merah."},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(KINDS["png"])
    convert(ROWS, "data", format="vqa", validation=0, images=".")
    stage = "stages: [{name: sft, data: [data/train.jsonl], steps: 1, max_length: 4096}]"
    Path("train.yaml").write_text(f"model: {{name: tiny}}\nadapter: {{rank: 2}}\n{stage}\n")


def test_check_writes_the_page_with_the_template_and_the_exact_rows(monkeypatch: Any, capsys: Any) -> None:
    code, out, _ = called(monkeypatch, capsys, "check", "train.yaml", "--card", "data.html")
    assert code == 0 and "data.html" in out
    page = Path("data.html").read_text()
    shown = [html.unescape(text) for text in re.findall(r"<pre[^>]*>\n(.*?)</pre>", page, re.DOTALL)]
    _, processor = tiny.load()
    assert shown[0] == chat_template(processor) and template_sha256(processor) in page
    expected = set()
    for row in load_rows("data/train.jsonl"):
        parts = render_sample(row, processor)
        expected.add(parts.prompt + parts.empty_think + parts.answer + parts.suffix)
    template, start, *rest = shown  # what all rows begin with stands once
    assert template and start and {start + text for text in rest} == expected and len(expected) == 2


@pytest.mark.parametrize(("files", "message"), [("[data/train.jsonl, other/train.jsonl]", "several folders")])
def test_data_of_several_folders_is_refused_by_name(
    files: str, message: str, monkeypatch: Any, capsys: Any
) -> None:
    convert(
        [row | {"question": "Lain?"} for row in ROWS[:1]], "other", format="vqa", validation=0, images="."
    )
    words = ["check", "train.yaml", "--set", f"stages.0.data={files}", "--card", "data.html"]
    code, out, err = called(monkeypatch, capsys, *words)
    assert code == 2 and message in err + out and not Path("data.html").exists()
