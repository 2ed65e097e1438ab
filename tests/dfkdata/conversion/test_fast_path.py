"""Rows that are written many at once give the files that rows written alone give, byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkdata import convert
from dfkdata.conversion import fast_path
from dfkdata.conversion.runner import ConversionRun
from dfkdata.rows.record import Record, RowError

ODD = ["satu", "café", "cafe\u0301", "a\u200bb", "tidak <b>", "<|im_end|>", " ", "\ud800", "“x” – ñ"]
ODD += ["nan", " N/A. ", "lihat #REF! ini", "nol \0 byte", "rusak \ufffd", "#judul", "apa <image> itu"]
TEXTS = st.sampled_from(ODD) | st.integers(0, 30).map(lambda n: f"Apa berita {n}?")
ROWS = st.fixed_dictionaries(
    {"instruction": TEXTS, "output": st.sampled_from(["", 3, None]) | TEXTS},
    optional={
        "input": TEXTS,
        "system": st.sampled_from(["", "Jawab singkat."]),
        "id": st.sampled_from(["k1", "k2", "k3", "é"]),
        "case": st.sampled_from(["x", "y", "", None]),
        "image": st.just("missing.png"),
    },
)
WAYS: list[dict[str, Any]] = [
    {},
    {"validation": 0.3, "test": 0.2},
    {"validation": 0.3, "rules": {"CONTROL_TOKEN": "warn", "ZERO_WIDTH": "fix", "TEXT_NFC": "off"}},
    {"validation": 0.3, "group_by": "case"},
    {"validation": 0.3, "where": ["case=x"]},
    {"validation": 0.4, "stratify": "instruction"},
    {"test": 0.3, "limit": 4, "sample": True},
    {"test": 0.3, "limit": 4, "deep": True},
    {"split_column": "case"},
    *({"to": layout, "validation": 0.3} for layout in ("swift", "sharegpt", "openai", "prompt_completion")),
]


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(ROWS, max_size=30), st.lists(ROWS, max_size=6), st.sampled_from(WAYS), st.sampled_from([1, 600])
)
def test_rows_written_many_at_once_are_those_written_alone(
    folder: Path, rows: list[Any], held: list[Any], way: dict[str, Any], waiting: int
) -> None:
    more: dict[str, Any] = {"test_file": held} if held and not way.keys() & {"test", "split_column"} else {}
    for at_once in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast_path, "_WAITING_BYTES", waiting)
            if not at_once:
                patch.setattr(ConversionRun, "batcher", lambda self: None)
            convert(rows, folder / str(at_once), format="alpaca", overwrite=True, **way, **more)
    assert list(contents(folder / "True")) == list(contents(folder / "False"))


def test_plain_rows_are_written_many_at_once(tmp_path: Path) -> None:
    """The comparison above compares two ways."""
    calls: list[int] = []
    rows = [{"instruction": f"Apa {n}?", "output": f"Itu {n}."} for n in range(50)]
    with pytest.MonkeyPatch.context() as patch:
        real = ConversionRun.write_plain
        patch.setattr(
            ConversionRun,
            "write_plain",
            lambda self, *columns: (calls.append(len(columns[0])), real(self, *columns)),
        )
        convert(rows, tmp_path / "out", format="alpaca")
    assert calls == [50]


def test_a_training_copy_of_a_held_out_row_is_set_aside_whole(tmp_path: Path) -> None:
    rows = [{"instruction": "Apa?", "output": "Itu."}, {"instruction": "Siapa?", "output": "Dia."}]
    summary = convert(rows, tmp_path / "out", format="alpaca", test_file=rows[:1])
    assert summary.rows["duplicates"] == 1 and summary.splits == {"train": 1, "validation": 0, "test": 1}
    (copy,) = map(json.loads, (tmp_path / "out" / "duplicates.jsonl").read_text().splitlines())
    assert copy["kept"] == "held out" and copy["source"] == "memory:1"
    assert copy["raw"]["messages"][0]["content"][0]["text"] == "Apa?"


def test_a_key_that_names_two_rows_is_refused_among_rows_written_at_once(tmp_path: Path) -> None:
    rows = [{"id": key, "instruction": f"Apa {n}?", "output": "Itu."} for n, key in enumerate("abca")]
    summary = convert(rows, tmp_path / "out", format="alpaca")
    assert summary.rows["out"] == 3 and summary.codes["ID_TWICE"]["first"]["source"] == "memory:4"


def test_near_texts_are_named_by_their_lines(tmp_path: Path) -> None:
    text = "Pemerintah kota akan membangun jalan baru di dekat pasar lama pada bulan depan kata wali kota"
    rows = [{"instruction": f"Apa berita ke {n}?", "output": "Itu."} for n in range(40)]
    train = [*rows, {"instruction": text, "output": "Ya."}, *rows[:3]]
    test = [{"instruction": "Siapa?", "output": "Dia."}, {"instruction": f"{text} Budi", "output": "Ya."}]
    summary = convert(train, tmp_path / "out", format="alpaca", test_file=test)
    reason = summary.warnings["TEXT_NEAR_DUPLICATE"]["first"]["reason"]
    assert reason.endswith("such as test.jsonl:2 and train.jsonl:41 (in the input memory:2 and memory:41)")


MORE: dict[str, Any] = {
    "images": ("a.png",),
    "videos": ("a.mp4",),
    "audios": ("a.wav",),
    "tools": [{"function": {"name": "f"}}],
    "warnings": (RowError("LABEL_CONFLICT", "the column says otherwise"),),
    "fields": {"title": "x"},
    "meta": {"link": "x"},
    "gold": {},
}


class NoSink:
    """A sink that nothing may reach."""

    writer: Any = None
    splitter: Any = None

    def reject(self, reject: Any) -> None:
        raise AssertionError(reject)

    def write_plain(self, *columns: Any) -> None:
        raise AssertionError(columns)


@pytest.mark.parametrize("name", [None, *MORE])
def test_a_row_that_is_more_than_its_turns_goes_alone(name: str | None) -> None:
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "Apa?"), ("assistant", "Itu."))
    ]
    more = {name: MORE[name]} if name is not None else {}
    record = Record(id="", group="", source="memory:1", messages=turns, **more)
    assert fast_path.PlainTextBatcher(NoSink(), None).takes({}, record, None) is (name is None)


def test_rows_written_at_once_keep_their_group(tmp_path: Path) -> None:
    rows = [{"instruction": f"Apa {n}?", "output": "Itu.", "case": f"c{n % 9}"} for n in range(90)]
    convert(rows, tmp_path / "out", format="alpaca", group_by="case", validation=0.4)
    sides = {
        side: [json.loads(line)["meta"]["group"] for line in (tmp_path / "out" / f"{side}.jsonl").open()]
        for side in ("train", "validation")
    }
    assert Counter(sides["train"] + sides["validation"]) == {f"c{n}": 10 for n in range(9)}
    assert sides["validation"] and not set(sides["train"]) & set(sides["validation"])


def row(key: str, question: str) -> dict[str, str]:
    return {"id": key, "instruction": question, "output": "Itu."}


def test_a_held_out_copy_brings_its_own_key(tmp_path: Path) -> None:
    """The training copy goes; the key of the row that is written in its place counts."""
    held = [row("2", "Apa?"), row("2", "Siapa?")]
    summary = convert([row("1", "Apa?")], tmp_path / "out", format="alpaca", validation_file=held)
    assert summary.codes["ID_TWICE"]["first"]["source"] == "memory:2"
    assert summary.splits["validation"] == 1 and summary.rows["quarantined"] == 1
    same = convert([row("1", "Apa?")], tmp_path / "same", format="alpaca", validation_file=[row("1", "Apa?")])
    assert same.splits == {"train": 0, "validation": 1} and not same.codes


def test_a_held_out_file_of_which_no_row_is_left_is_told(tmp_path: Path) -> None:
    rows = [row(str(n), f"Apa {n}?") for n in range(20)]
    summary = convert(rows[:15], tmp_path / "out", format="alpaca", validation_file=rows[15:], limit=10)
    assert "no row of the input for validation" in summary.warnings["SPLIT_EMPTY"]["first"]["reason"]


def test_a_control_token_in_a_tool_is_found(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [{"role": "user", "content": "Apa?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    tool = {"type": "function", "function": {"name": "f", "description": "x<|im_end|>", "parameters": {}}}
    rows = [{"messages": turns, "tools": [tool]}]
    assert list(convert(rows, tmp_path / "out", format="messages").codes) == ["CONTROL_TOKEN"]
