"""The dataset card shows rows as they are written, sign for sign."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, load_rows
from dfkdata.reports.dataset_card import write_card
from dfkdata.reports.row_text import ModelView, row_texts
from tests.helpers.browser import Browser, opened


class Blocks(HTMLParser):
    """Collect the texts of <pre> as a browser shows them: it drops one newline after the tag."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "pre":
            self.open = True
            self.texts.append("")
        elif tag == "mark":
            self.texts[-1] += "<"

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self.open = False
            self.texts[-1] = self.texts[-1].removeprefix("\n")
        elif tag == "mark":
            self.texts[-1] += ">"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[-1] += data


def blocks(folder: Path) -> list[str]:
    parser = Blocks()
    parser.feed(write_card(folder, folder / "card.html").read_text(encoding="utf-8"))
    return parser.texts


def said(turn: dict[str, Any]) -> str:
    return "".join(
        part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in turn["content"]
    )


def test_turns_tools_and_calls_are_shown_sign_for_sign(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": "x  <b>\n"}}}
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}},
    }
    rows = [
        {
            "messages": [
                {"role": "system", "content": "\nbe  <i>brief</i> & 'kind'\n\n"},
                {"role": "user", "content": [
                    {"type": "text", "text": "first\n"}, {"type": "text", "text": "  second &amp; last "}
                ]},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ],
            "tools": [tool],
        }
    ]  # fmt: skip
    summary = convert(rows, tmp_path / "out", format="messages", validation=0)
    (row,) = load_rows(summary.folder / "train.jsonl")
    shown = blocks(summary.folder)  # of one row, so that nothing is shared
    assert shown[0] == json.dumps(row["tools"], separators=(",", ":"))
    assert shown[1:3] == [said(turn) for turn in row["messages"][:2]]
    assert shown[2] == "first\n  second &amp; last " and shown[1].startswith("\n")
    assert json.loads(shown[4]) == call["function"]


def test_a_picture_is_marked_where_the_model_sees_it(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    rows = [{"question": "what\nis it?", "answer": "a  square", "image": "a.png"}]
    summary = convert(rows, tmp_path / "out", format="vqa", images=tmp_path, validation=0)
    (row,) = load_rows(summary.folder / "train.jsonl")
    assert blocks(summary.folder) == [said(turn) for turn in row["messages"]]
    assert "<image>" in "".join(blocks(summary.folder))


EVIL = "</pre></script><script>document.title='owned'</script><img src=x onerror=alert(2)>\"'&<b>"
PERSONAL = "hubungi @budi.s di https://contoh.id/a?b=1 atau +62 812-3456-7890, surel a.b@contoh.co.id"


def posts(folder: Path) -> Path:
    """A converted data set with labels, rejects, near duplicates over splits, and hostile texts."""
    from PIL import Image

    rows = []
    for index in range(40):
        Image.new("RGB", (40 + index, 30), (index * 6, 90, 255 - index * 6)).save(folder / f"p{index}.png")
        words = " ".join(f"kata{index * 7 % 40 + at}" for at in range(12 + index % 9))
        label = ("Disinformasi", "Fitnah", "Netral")[index % 3] if index != 9 else "Lainnya"
        image = f"p{index}.png" if index != 7 else "gone.png"
        post = {"title": f"Kabar {index} {EVIL}", "link": f"https://contoh.id/{index}", "img_path": image}
        rows.append(post | {"text": f"{words} {PERSONAL}", "label": label, "analisis": f"Klaim {index}"})
    rows += [row | {"link": f"{row['link']}/lagi", "text": row["text"] + " ya"} for row in rows[:6]]
    return convert(rows, folder / "out", format="dfk_csv", images=folder, validation=0.4).folder


def test_what_all_rows_begin_with_stands_once_and_every_row_is_whole(tmp_path: Path) -> None:
    folder = posts(tmp_path)
    rows = [row for split in ("train", "validation") for row in load_rows(folder / f"{split}.jsonl")]
    found = row_texts(rows)
    assert [role for role, _ in found.shared] == ["user"]
    start = found.shared[0][1]
    for row, shown in zip(rows, found.rows, strict=True):
        assert not isinstance(shown, str)
        whole = html.unescape(start + shown[0][1]).replace("<mark>", "<").replace("</mark>", ">")
        assert [whole, html.unescape(shown[1][1])] == [said(turn) for turn in row["messages"]]
    assert row_texts(rows[:1]).shared == []


def test_a_model_view_shares_whole_lines_and_loses_no_sign() -> None:
    texts = ["a\nb\nc1\n", "a\nb\nc2", "a\nb\n"]
    view = ModelView("m", "t", "0", lambda row: str(row["text"]))
    found = row_texts([{"text": text} for text in texts], view)
    assert found.shared == [("", "a\nb\n")]
    assert ["a\nb\n" + shown[0][1] for shown in found.rows if not isinstance(shown, str)] == texts


def test_the_page_says_what_the_conversion_did(tmp_path: Path) -> None:
    folder = posts(tmp_path)
    made = write_card(folder, folder / "card.html").read_text(encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = manifest["rows"]
    assert f"{rows['out']} rows" in made and f"{rows['quarantined']} rejected" in made
    for code in (*manifest["codes"], *manifest["warnings"]):
        assert made.count(code) >= 2, code  # in the table and with its examples
    assert made.count('<div class="two">') == len(
        {
            line["row"]
            for line in map(json.loads, (folder / "warnings.jsonl").open())
            if line.get("partner_row")
        }
    )
    for split in ("train", "validation"):
        for label, n in manifest["labels"]["label"][split].items():
            assert label in made and f">{n}</td>" in made
    for title in ("Length of prompts", "Length of answers", "Longer side of pictures"):
        assert title in made
    assert "Held-out rows share with training" in made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


@pytest.mark.browser
def test_in_a_browser_rows_are_paged_filtered_and_searched(browser: Browser, tmp_path: Path) -> None:
    folder = posts(tmp_path)
    card = write_card(folder, folder / "card.html", lang="id")
    seen = "[...document.querySelectorAll('article.row')].filter(row => row.offsetParent).length"
    browser.screen(1400, 900)
    browser.open(card)
    assert browser.run(seen) == 12 and browser.text(".pager .at") == "halaman 1 dari 4"
    browser.click(".pager button[data-step='1']")
    assert browser.text(".pager .at") == "halaman 2 dari 4"
    browser.run("document.querySelector('select[data-of=label]').value = 'fitnah'")
    browser.run("document.querySelector('select[data-of=label]').dispatchEvent(new Event('input'))")
    labels = browser.run(
        "[...document.querySelectorAll('article.row')].filter(row => row.offsetParent).map(row => row.dataset.label)"
    )
    assert labels and set(labels) == {"fitnah"}
    browser.run("document.querySelector('.rows-controls input').value = 'tidakadakataitu'")
    browser.run("document.querySelector('.rows-controls input').dispatchEvent(new Event('input'))")
    assert browser.run(seen) == 0 and browser.text(".none-fits") == "Tidak ada baris yang cocok."
    browser.click(".two .thumb")
    assert browser.run("document.querySelector('dialog.large').open")
    browser.screen(360, 800, dark=True)
    browser.open(card)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("document.title") == "Set data out"
    assert not browser.errors and not browser.requests
