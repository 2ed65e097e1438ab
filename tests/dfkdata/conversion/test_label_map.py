"""Labels in every spelling: aliases by what does not count, maps of the user's own, and the source's spelling."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dfkdata import convert, load_rows
from dfkdata.cli import app
from dfkdata.common.errors import ConfigError
from dfkdata.reports.preview import preview
from dfkdata.schemas import DFK, DFK_RAW, LabelSet, load
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of

JOINTS = (
    "",
    "\u200b",
    "\u2060",
    "\u00ad",
    "\ufeff",
    " ",
    "  ",
    "-",
    "_",
    "\u00a0",
    "\u2011",
    "\u2013",
    " - ",
    "\u202f",
    "\t",
)


@pytest.mark.parametrize("labels", [DFK, DFK_RAW])
@pytest.mark.parametrize("joint", JOINTS)
def test_what_stands_between_words_does_not_count(labels: LabelSet, joint: str) -> None:
    for spelling in labels.spellings:
        plain = labels.resolve(spelling)
        words = spelling.replace("_", " ").replace("-", " ").split()
        for text in (joint.join(words), joint.join(words).upper() + ".", f"\u200b{joint.join(words)}\ufeff "):
            resolved = labels.resolve(text)
            assert plain is not None and resolved is not None and resolved.label == plain.label, text


@given(st.text(max_size=12))
def test_a_text_that_resolved_exactly_resolves_the_same(text: str) -> None:
    folded = text.strip().removesuffix(".").strip().lower()
    resolved = DFK.resolve(text)
    if folded in DFK.canonical:
        assert resolved == (folded, None)
    elif folded in DFK.aliases:
        assert resolved == (DFK.aliases[folded], folded)


def test_two_classes_that_differ_only_in_what_does_not_count_stay_apart() -> None:
    labels = LabelSet(("a b", "a-b"))
    assert [labels.resolve(text) and labels.resolve(text).label for text in ("a b", "A-B.", "a_b")] == [
        "a b",
        "a-b",
        None,
    ]


@pytest.fixture
def posts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of posts whose labels are spelt in eight ways; the current folder is its folder."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/0.png").write_bytes(KINDS["png"])
    spellings = ["Hoaks", "HOAX", "UK", "0", "2.0", "Ujaran-Kebencian", "Fitnah", "netral"]
    with Path("posts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_filename", "label", "analisis_pelanggaran"])
        writer.writerows(["0.png", spelling, f"Alasan {at}."] for at, spelling in enumerate(spellings))
    Path("map.yaml").write_text(
        "hoaks: disinformasi\nhoax: Disinformasi\nUK: ujaran_kebencian\n0: netral\n2: fitnah\nnetral: fitnah\n"
    )
    return Path("posts.csv")


def labels_of(folder: Path | str) -> list[tuple[str, str]]:
    rows = rows_of(Path(folder), "train")
    return [
        (r["meta"]["gold"]["label"], r["messages"][-1]["content"][0]["text"].split("\n")[0]) for r in rows
    ]


WANTED = [
    "disinformasi",
    "disinformasi",
    "ujaran kebencian",
    "netral",
    "fitnah",
    "ujaran kebencian",
    "fitnah",
    "fitnah",
]


def test_a_map_resolves_spellings_and_class_indexes(posts: Path) -> None:
    done = convert(posts, "out", format="dfk_csv", labels="map.yaml", validation=0)
    assert labels_of("out") == [(label, f"Label: {label}") for label in WANTED]
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["config"]["labels"]["2"] == "fitnah" and not done.codes
    rows = [
        {**row, "label": {"0": 0, "2.0": 2.0}.get(row["label"], row["label"])}
        for row in csv.DictReader(posts.open())
    ]
    convert(rows, "memory", format="dfk_csv", labels=Path("map.yaml"), validation=0)
    assert labels_of("memory") == labels_of("out")
    Path("map.yaml").write_text("hoaks: fitnah\n")
    with pytest.raises(ConfigError, match="other"):
        convert(posts, "out", format="dfk_csv", labels="map.yaml", validation=0)


WORDS = (
    "0", "1", "-1", "-2", "1.5", "2.0", "01", "Yes", "no", "ON", "off", "y", "true", "False", "null", "~", "1e3",
    "2024-01-31", "12:30", "0x1F", "1_000", "=", "<<", "a: b",
)  # fmt: skip


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_whatever_stands_in_a_map_is_a_spelling_and_no_two_of_them_are_mixed_up(
    posts: Path, quote: str
) -> None:
    names = ["netral", "fitnah", "disinformasi", "ujaran kebencian"]
    meant = {word: names[at % 4] for at, word in enumerate(WORDS) if quote or word not in ("a: b", "<<")}
    Path("map.yaml").write_text("".join(f"{quote}{word}{quote}: {label}\n" for word, label in meant.items()))
    rows = [
        {"image_filename": "0.png", "label": word, "analisis_pelanggaran": f"Alasan {at}."}
        for at, word in enumerate(meant)
    ]
    done = convert(rows, "out", format="dfk_csv", labels="map.yaml", validation=0)
    assert not done.codes
    assert [label for label, _ in labels_of("out")] == [*meant.values()]
    numbers = [row | {"label": int(row["label"])} for row in rows if row["label"] in ("0", "1", "-1", "-2")]
    convert(numbers, "numbers", format="dfk_csv", labels="map.yaml", validation=0)
    assert [label for label, _ in labels_of("numbers")] == names


def test_without_a_map_unknown_spellings_are_rejects_that_name_the_option(posts: Path) -> None:
    done = convert(posts, "out", format="dfk_csv", validation=0, max_rejects=9)
    assert done.codes["LABEL_UNKNOWN"]["count"] == 5
    assert "--labels" in done.codes["LABEL_UNKNOWN"]["first"]["hint"]


def test_a_stratified_split_counts_mapped_labels(posts: Path) -> None:
    convert(
        posts,
        "out",
        format="dfk_csv",
        labels="map.yaml",
        validation=0.5,
        stratify="label",
        group_by="analisis_pelanggaran",
    )
    counts = json.loads(Path("out/manifest.json").read_text())["labels"]["label"]
    assert counts["validation"]["disinformasi"] == counts["train"]["disinformasi"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hoaks: disinfo\n", "did you mean 'disinformasi'"),
        ("hoaks: 3\n", "'3' is none of"),
        ("hoaks: No\n", "'No' is none of"),
        ("hoaks:\n", "lacks a spelling or a class"),
        ("'': netral\n", "lacks a spelling or a class"),
        ("No: netral\nNo: fitnah\n", "line 2: the key 'No' is written twice"),
        ("0: netral\n'0': fitnah\n", "line 2: the key '0' is written twice"),
        ("3: netral\n3.0: fitnah\n", "one spelling with two classes"),
        ("a b: netral\nA-B: fitnah\n", "one spelling with two classes"),
        ("- hoaks\n", "write lines such as"),
        ("", "write lines such as"),
        ("a: [b\n", "not YAML"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(posts: Path, text: str, message: str) -> None:
    Path("map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        convert(posts, "out", format="dfk_csv", labels="map.yaml", validation=0)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "dfk_csv", "labels": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
        ({"format": "alpaca", "labels": "map.yaml"}, "no schema with classes"),
        ({"format": "alpaca", "labels": "raw"}, "no schema with classes"),
    ],
)
def test_labels_without_classes_are_refused(posts: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(posts, "out", validation=0, **options)


def test_raw_trains_on_the_spelling_of_the_source_and_keeps_the_class_as_gold(tmp_path: Path) -> None:
    spellings = ["Fitnah", "FAKTA", "ujaran_kebencian", "Netral"]
    (tmp_path / "0.png").write_bytes(KINDS["png"])
    rows = [
        {"frame_path": "0.png", "label": f" {name} ", "analisis": f"{at}."}
        for at, name in enumerate(spellings)
    ]
    for to in ("messages", "swift"):
        convert(rows, tmp_path / to, format="dfk_frames", to=to, images=tmp_path, labels="raw", validation=0)
    golds = ["fitnah", "netral", "ujaran kebencian", "netral"]
    assert labels_of(tmp_path / "messages") == [
        (a, f"Label: {b}") for a, b in zip(golds, spellings, strict=True)
    ]
    said = [row["messages"][-1]["content"] for row in rows_of(tmp_path / "swift", "train")]
    assert said == [f"Label: {name}\n\nAnalisis: {at}." for at, name in enumerate(spellings)]
    text = {"input": "Klaim", "output": "Label: **fitnah.** penjelasan: Bohong.", "_label": "FITNAH"}
    convert([text], tmp_path / "text", format="dfk_text", labels="raw", validation=0)
    (row,) = rows_of(tmp_path / "text", "train")
    assert row["messages"][-1]["content"][0]["text"] == "Label: **fitnah.** penjelasan: Bohong."
    assert row["meta"]["gold"]["label"] == "fitnah"


def test_the_commands_take_labels(posts: Path) -> None:
    how = ["posts.csv", "--from", "dfk_csv", "--labels", "map.yaml"]
    assert CliRunner().invoke(app.app, ["convert", *how, "--to", "messages", "--out", "out"]).exit_code == 0
    assert CliRunner().invoke(app.app, ["check", *how]).exit_code == 0
    assert "Label: disinformasi" in CliRunner().invoke(app.app, ["preview", *how]).output


@pytest.mark.parametrize(
    ("column", "row_taken"), [("3", True), ("3.0", True), ("Fitnah", True), ("4", False)]
)
def test_a_class_index_beside_the_text_is_read_by_the_map(
    column: str, row_taken: bool, tmp_path: Path
) -> None:
    row = {"input": "klaim", "output": "Label: **Fitnah.** penjelasan: sebab", "_label": column}
    options: dict[str, Any] = {"format": "dfk_text", "validation": 0, "keep_empty": True}
    labels = {3: "fitnah", 4: "netral"}
    summary = convert([row], tmp_path / "out", labels=labels, **options)
    assert (summary.rows["out"], [*summary.codes]) == ((1, []) if row_taken else (0, ["LABEL_CONFLICT"]))
    (shown,) = preview([row], "dfk_text", labels=labels)
    assert ("LABEL_CONFLICT" in shown) != row_taken
    alone = convert([row], tmp_path / "alone", **options)
    assert (alone.rows["out"] == 1) == (column == "Fitnah")
    if column != "Fitnah":
        assert "--labels MAP.yaml" in alone.codes["LABEL_CONFLICT"]["first"]["hint"]


@pytest.mark.parametrize("labels", [None, "raw", "raw-lower"])
@pytest.mark.parametrize("spelling", ["Fitnah", "UJARAN-KEBENCIAN", "Ujaran Kebencian"])
def test_a_preview_shows_the_answer_that_convert_writes(labels: Any, spelling: str, tmp_path: Path) -> None:
    row = {"input": "klaim", "output": f"Label: **{spelling}.** penjelasan: sebab", "_label": spelling}
    summary = convert([row], tmp_path / "out", format="dfk_text", validation=0, labels=labels)
    (written,) = load_rows(summary.folder / "train.jsonl")
    answer = "".join(part["text"] for part in written["messages"][-1]["content"])
    (shown,) = preview([row], "dfk_text", labels=labels)
    assert shown.endswith("assistant: " + answer.replace("\n", "\n    "))


OPTIONS: list[Any] = [None, "raw", "raw-lower", {"FITNAH": "netral"}, {"x y": "netral"}]
TURNS = ("dfk_messages", "dfk_text_messages", "messages", "openai")
FORMS = {
    ("dfk_label", None): "Label: {}\n\nAnalisis: Satu.\n\nAnalisis: dua.",
    ("dfk_label", "card"): "Label: {}\nAnalisis: Satu.\n",
    ("dfk_text", None): "Label: **{}.** penjelasan: Label: **FITNAH.**",
}


def own_turns(answer: Any, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "klaim"}, {"role": "assistant", "content": answer}],
        **more,
    }


@pytest.mark.parametrize("format", TURNS)
@pytest.mark.parametrize("schema", FORMS, ids=str)
@pytest.mark.parametrize("labels", OPTIONS, ids=str)
@pytest.mark.parametrize("spelling", ["FITNAH", "Ujaran-Kebencian", "ujaran kebencian", " Netral ", "X-Y"])
def test_the_answer_of_a_row_with_turns_follows_the_option_and_its_gold(
    format: str, schema: tuple[str, str | None], labels: Any, spelling: str, tmp_path: Path
) -> None:
    row, (name, variant) = own_turns(FORMS[schema].format(spelling)), schema
    options: dict[str, Any] = {"format": format, "schema": name, "variant": variant, "labels": labels}
    done = convert([row], tmp_path / "out", validation=0, **options)
    known = DFK.with_own(labels if isinstance(labels, dict) else {})
    resolved = known.resolve(spelling)
    if resolved is None:
        assert [*done.codes] == ["LABEL_UNKNOWN"] and done.rows["out"] == 0
        return
    (written,) = load_rows(done.folder / "train.jsonl")
    wanted = {None: spelling, "raw": spelling.strip(), "raw-lower": spelling.strip().lower()}
    printed = dict(getattr(load(name, variant).form, "printed", ())).get(resolved.label, resolved.label)
    target = printed if isinstance(labels, dict) else wanted[labels]
    answer = written["messages"][-1]["content"][0]["text"]
    assert answer == FORMS[schema].format(target)
    assert written["meta"]["gold"]["label"] == resolved.label
    (shown,) = preview([row], format, schema=name, variant=variant, labels=labels)
    assert shown.endswith("assistant: " + answer.replace("\n", "\n    "))


@pytest.mark.parametrize("labels", OPTIONS[1:], ids=str)
def test_what_cannot_be_written_again_or_contradicts_its_gold_is_a_reject(
    labels: Any, tmp_path: Path
) -> None:
    parts = [{"type": "text", "text": text} for text in ("Label: Ujaran-Kebencian ", "\n\nAnalisis: A.")]
    gold = {"label": "disinformasi", "analisis": "A."}
    rows = [
        own_turns(parts),
        own_turns("Label: fitnah\n\nAnalisis: A.", meta={"gold": gold}),
        own_turns("Fitnah, sebab A.", meta={"gold": gold}),
    ]
    for at, row in enumerate(rows):
        out = tmp_path / str(at)
        done = convert([row], out, format="messages", schema="dfk_label", labels=labels, validation=0)
        assert ([*done.codes], done.rows["out"]) == (["GOLD_INVALID"], 0), at


KINDS_SCHEMA = """
from typing import Annotated
from dfkdata.schemas import BaseAnswer, JsonForm, Label, LabelSet, Prompt, ToolForm, Value, Variant

class Answer(BaseAnswer):
    kind: Annotated[str, Label(LabelSet(("calm", "angry"), {"furious": "angry"}))]
    why: str = ""

ASK = Prompt((Value("text", otherwise=""),))
VARIANTS = {
    "json": Variant(ASK, JsonForm()),
    "field": Variant(ASK, JsonForm("kind")),
    "tool": Variant(ASK, ToolForm("set_kind", "Store the kind.")),
}
"""


@pytest.mark.parametrize(
    ("variant", "before", "after"),
    [
        ("json", '{"kind":"Furious","why":"\u00e9"}', '{"kind":"calm","why":"\u00e9"}'),
        ("json", '{"kind": "Furious", "why": "\u00e9"}', '{"kind": "calm", "why": "\u00e9"}'),
        ("json", '{"kind": "Furious", "why": "\\u00e9"}', '{"kind": "calm", "why": "\\u00e9"}'),
        ("json", '{"kind":  "Furious"}', None),
        ("json", '{"kind":  "calm"}', '{"kind":  "calm"}'),
        ("field", '"Furious"', '"calm"'),
    ],
)
def test_a_map_reaches_answers_in_json(
    variant: str, before: str, after: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_moods").mkdir()
    (tmp_path / "own_moods/kinds.py").write_text(KINDS_SCHEMA)
    monkeypatch.syspath_prepend(str(tmp_path))
    options: dict[str, Any] = {"schema": "own_moods.kinds", "variant": variant, "labels": {"furious": "calm"}}
    done = convert([own_turns(before)], tmp_path / "out", format="messages", validation=0, **options)
    if after is None:
        assert [*done.codes] == ["GOLD_INVALID"]
        return
    (row,) = load_rows(done.folder / "train.jsonl")
    assert (row["messages"][-1]["content"][0]["text"], row["meta"]["gold"]["kind"]) == (after, "calm")


def test_a_map_reaches_the_call_of_a_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_moods").mkdir()
    (tmp_path / "own_moods/kinds.py").write_text(KINDS_SCHEMA)
    monkeypatch.syspath_prepend(str(tmp_path))
    row = own_turns("")
    call = {"name": "set_kind", "arguments": {"kind": "Furious", "why": "x"}}
    row["messages"][-1]["tool_calls"] = [{"type": "function", "function": call}]
    options: dict[str, Any] = {"schema": "own_moods.kinds", "variant": "tool", "labels": {"furious": "calm"}}
    done = convert([row], tmp_path / "out", format="messages", validation=0, **options)
    (written,) = load_rows(done.folder / "train.jsonl")
    (said,) = written["messages"][-1]["tool_calls"]
    assert said["function"]["arguments"] == {"kind": "calm", "why": "x"} == written["meta"]["gold"]


def test_joined_spellings_never_merge_classes_or_numbers() -> None:
    labels = LabelSet(("a b", "ab", "c d")).with_own({"10": "ab", "e f": "ab", "ef": "c d", "g h": "ab"})
    given = ["a_b", "a\u200bb", "AB", "cd", "c\u00add", "1 0", "10.0", "e f", "ef", "gh", "a  b"]
    found = [resolved and resolved.label for resolved in map(labels.resolve, given)]
    assert found == ["a b", "ab", "ab", "c d", "c d", None, "ab", "ab", "c d", "ab", "a b"]
