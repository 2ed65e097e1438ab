"""The dataset card shows rows as they are written, sign for sign."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from dfkdata import convert, load_rows
from dfkdata.reports.dataset_card import write_card


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
    shown = blocks(summary.folder)
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
