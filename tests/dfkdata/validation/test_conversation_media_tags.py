"""A tag such as <image> that is read as text beside a file is a named warning, whatever the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert
from dfkdata.validation.rules import Policy
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of, write

Shape = tuple[str, dict[str, Any]]
FILES = {"image": "a.png", "video": "a.mp4", "audio": "a.wav"}
READS_TAGS = {"swift", "sharegpt", "llava", "query_response"}


def talk(asked: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": "A line."}]


def speakers(asked: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": "A line."}]


def shapes(asked: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return a row of each format that takes files of a kind."""
    files, text = {f"{kind}s": [FILES[kind]]}, {"type": "text", "text": asked}
    own = [{"type": kind, kind: FILES[kind]}, text]
    address = [{"type": "image_url", "image_url": {"url": FILES[kind]}}, text]
    rows: dict[str, dict[str, Any]] = {
        "messages": {"messages": talk(asked)} | files,
        "messages, own parts": {"messages": talk(own)},
        "dfk_messages": {"messages": talk(own)},
        "prompt_completion": {"prompt": asked, "completion": "A line."} | files,
        "prompt_completion, turns": {"prompt": talk(asked)[:1], "completion": talk(asked)[1:]} | files,
        "swift": {"messages": talk(asked)} | files,
        "sharegpt": {"conversations": speakers(asked)} | files,
        "query_response": {"query": asked, "response": "A line."} | files,
    }
    if kind == "image":
        pairs = {"instruction": asked, "input": "", "output": "A line."} | files
        rows |= {
            "openai": {"messages": talk(address)},
            "alpaca": pairs,
            "alpaca, in the input": pairs | {"instruction": "Look.", "input": asked},
            "alpaca, earlier": pairs | {"instruction": "Look.", "history": [[asked, "Yes."]]},
            "vqa": {"question": asked, "answer": "A line.", "image_id": FILES[kind]},
            "llava": {"conversations": speakers(asked), "image": FILES[kind]},
        }
    return rows


GRID = [
    (name, kind, tag)
    for kind in FILES
    for name in shapes("", kind)
    for tag in (*FILES, "")
    if not (
        name.split(",")[0] in READS_TAGS and tag not in (kind, "")
    )  # a tag without its file is a reject there
]


def converted(
    name: str, row: dict[str, Any], folder: Path, to: str = "messages", policy: Policy | None = None
) -> tuple[Any, Path]:
    for path in FILES.values():
        (folder / path).write_bytes(KINDS["png"])
    rules: dict[str, Policy] = {"SIZE_RECOMMENDED": "off"} | ({"MEDIA_TAG": policy} if policy else {})
    source, out = write(folder / "in.jsonl", [row]), folder / f"out-{to}-{policy}"
    return convert(source, out, format=name.split(",", maxsplit=1)[0], to=to, validation=0, rules=rules), out


@pytest.mark.parametrize(("name", "kind", "tag"), GRID)
def test_a_tag_beside_a_file_of_its_kind_is_a_placeholder_or_a_warning(
    name: str, kind: str, tag: str, tmp_path: Path
) -> None:
    asked = f"<{tag}>What is it?" if tag else "What is it?"
    if not tag and name in READS_TAGS - {"query_response"}:
        asked = f"<{kind}>What is it?"  # there it is the only way to show a file
    done, out = converted(name, shapes(asked, kind)[name], tmp_path)
    warned = name.split(",", maxsplit=1)[0] not in READS_TAGS and tag == kind
    assert {code: entry["count"] for code, entry in done.warnings.items()} == (
        {"MEDIA_TAG": 1} if warned else {}
    )
    assert done.rows["out"] == 1
    (row,) = rows_of(out, "train")
    parts = [part for turn in row["messages"] for part in turn["content"]]
    assert [part["type"] for part in parts].count(kind) == len(row[f"{kind}s"]) == 1
    texts = "".join(part.get("text", "") for part in parts)
    assert (f"<{kind}>" in texts) == warned
    if warned:
        (line,) = map(json.loads, (out / "warnings.jsonl").read_text().splitlines())
        assert (
            line["code"] == "MEDIA_TAG" and f"<{kind}>" in line["reason"] and line["source"] == "in.jsonl:1"
        )


@pytest.mark.parametrize("name", [name for name in shapes("", "image") if name not in READS_TAGS])
def test_the_policy_takes_the_row_out_or_says_nothing(name: str, tmp_path: Path) -> None:
    row = shapes("<image>What is it?", "image")[name]
    strict, _ = converted(name, row, tmp_path, policy="quarantine")
    assert (list(strict.codes), strict.rows["out"]) == (["MEDIA_TAG"], 0)
    silent, _ = converted(name, row, tmp_path, policy="off")
    assert (silent.warnings, silent.rows["out"]) == ({}, 1)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("messages", "swift"),
        ("prompt_completion", "query_response"),
        ("prompt_completion, turns", "query_response"),
        ("alpaca", "query_response"),
    ],
)
@pytest.mark.parametrize("to", ["messages", "sharegpt"])
def test_the_format_that_the_hint_names_reads_the_tag_as_the_picture(
    name: str, meant: str, to: str, tmp_path: Path
) -> None:
    done, out = converted(meant, shapes("<image>What is it?", "image")[name], tmp_path, to=to)
    assert (done.warnings, done.codes, done.rows["out"]) == ({}, {}, 1)
    assert rows_of(out, "train")[0]["images"]


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_a_tag_that_no_format_reads_as_a_file_is_text(role: str, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, *talk("What is it?")]
    said = [turn | {"content": "Write <image>."} if turn["role"] == role else turn for turn in turns]
    done, _ = converted("messages", {"messages": said, "images": ["a.png"]}, tmp_path)
    assert (done.warnings, done.rows["out"]) == ({}, 1)


def test_two_kinds_of_tags_in_a_row_are_one_warning(tmp_path: Path) -> None:
    row = {"messages": talk("<image><video>What is it?"), "images": ["a.png"], "videos": ["a.mp4"]}
    done, out = converted("messages", row, tmp_path)
    assert done.warnings["MEDIA_TAG"]["count"] == 1
    assert "<image> and <video>" in (out / "warnings.jsonl").read_text()
