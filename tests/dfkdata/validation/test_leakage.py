"""Groups by picture, what the sides of a split share, and the folder that one run has to itself."""

from __future__ import annotations

import io
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import Record, convert, read
from dfkdata.common.errors import ConfigError
from dfkdata.conversion.output_folder import Folder
from dfkdata.media.perceptual_hash import near_pairs
from dfkdata.validation import leakage
from dfkdata.validation.leakage import Compared, LeakageCheck, prompt_text
from dfkdata.validation.rules import RuleReporter
from dfkdata.validation.text_sketch import NEAR_SLOTS, sketches
from dfkdata.validation.written_rows import WrittenRows
from tests.helpers.pictures import KINDS, undecodable
from tests.helpers.rows import caption, rows_of, write

WORDS = [f"kata{n}" for n in range(500)]


def sentence(seed: int, count: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def chat(text: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}], **more}


def overlap(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "manifest.json").read_text())["overlap"]
    return found


def jpeg(seed: int, quality: int = 90) -> bytes:
    noise = Image.frombytes("L", (16, 16), random.Random(seed).randbytes(256)).resize((160, 160))
    buffer = io.BytesIO()
    noise.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


ROWS: dict[str, Any] = {
    "alpaca": lambda n, name: {"instruction": f"Q{n}", "output": f"A{n}", "image": name},
    "messages": lambda n, name: chat(f"Q{n}", f"A{n}", images=[name], id=f"k{n}"),
    "swift": lambda n, name: chat(f"<image>Q{n}", f"A{n}", images=[name]),
    "sharegpt": lambda n, name: {
        "conversations": [{"from": "human", "value": f"<image>Q{n}"}, {"from": "gpt", "value": f"A{n}"}],
        "images": [name],
    },
    "openai": lambda n, name: {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": name}}]},
            {"role": "assistant", "content": f"A{n}"},
        ]
    },
    "captions": lambda n, name: caption(n, image=name),
    "vqa": lambda n, name: {"question": f"Q{n}", "answer": f"A{n}", "image": name},
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_with_one_picture_share_a_group_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    for copy in ("a.png", "b.png"):
        (tmp_path / copy).write_bytes(KINDS["png"])
    (tmp_path / "c.gif").write_bytes(KINDS["gif"])
    rows = [ROWS[name](n, file) for n, file in enumerate(("a.png", "b.png", "c.gif"))]
    source = write(tmp_path / "in.jsonl", rows)
    found = [item for item in read(source, name) if isinstance(item, Record)]
    assert len(found) == 3
    assert found[0].group == found[1].group != found[2].group
    convert(source, tmp_path / "out", format=name, validation=0)
    written = rows_of(tmp_path / "out", "train")
    assert [row["meta"]["group"] for row in written] == [item.group for item in found]


@pytest.mark.parametrize("key", ["link", "post_id", "case_id"])
def test_a_link_post_or_case_of_the_row_or_its_meta_comes_before_the_picture(
    key: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    rows = [
        chat("one", "1", images=["a.png"], **{key: "p7"}),
        chat("two", "2", meta={key: "p7"}),
        {"instruction": "three", "output": "3", key: "p7"},
        {"instruction": "four", "output": "4", key: 7},
    ]
    kinds = ("messages", "messages", "alpaca", "alpaca")
    groups = []
    for n, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        (item,) = read(write(tmp_path / f"{n}.jsonl", [row]), kind)
        assert isinstance(item, Record)
        groups.append(item.group)
    assert groups == ["p7", "p7", "p7", "7"]


def test_fixed_splits_that_share_a_post_are_told_and_exact_copies_are_not(tmp_path: Path) -> None:
    train = [caption(n, link=f"l{n}") for n in range(6)]
    held = [caption(20, link="l3"), caption(5, link="l5"), caption(21, link="new")]
    files = write(tmp_path / "a.jsonl", train), write(tmp_path / "b.jsonl", held)
    summary = convert(files[0], tmp_path / "out", format="captions", validation_file=files[1])
    first = summary.warnings["GROUP_ACROSS"]["first"]["reason"]
    assert first.startswith("1 groups") and "validation.jsonl:1 and train.jsonl:4" in first
    assert overlap(tmp_path / "out")["groups"] == 1


def test_validation_and_test_files_that_share_a_post_are_told(tmp_path: Path) -> None:
    sides = [[caption(n, link=f"l{n}") for n in range(4)]]
    sides += [[caption(10, link="a"), caption(11, link="b")], [caption(12, link="c"), caption(13, link="b")]]
    files = [write(tmp_path / f"{n}.jsonl", rows) for n, rows in enumerate(sides)]
    held: dict[str, Any] = {"validation_file": files[1], "test_file": files[2]}
    summary = convert(files[0], tmp_path / "out", format="captions", **held)
    first = summary.warnings["GROUP_ACROSS"]["first"]["reason"]
    assert first.startswith("1 groups") and "test.jsonl:2 and validation.jsonl:2" in first
    assert overlap(tmp_path / "out")["groups"] == 1


def test_a_shuffle_of_rows_that_parts_posts_is_told(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [caption(n, link=f"l{n // 4}") for n in range(80)])
    summary = convert(source, tmp_path / "out", format="captions", split="sita", validation=0.2)
    groups = [
        {row["meta"]["group"] for row in rows_of(tmp_path / "out", part)} for part in ("train", "validation")
    ]
    assert overlap(tmp_path / "out")["groups"] == len(groups[0] & groups[1]) > 5
    assert "GROUP_ACROSS" in summary.warnings


def test_nearly_the_same_prompt_on_two_sides_is_told_by_default(tmp_path: Path) -> None:
    rows = [chat(sentence(n), f"A{n}", split="train") for n in range(30)]
    rows.append(chat(sentence(7).upper().replace("KATA", "kata", 20) + "!", "other", split="test"))
    rows.append(chat(sentence(99), "fine", split="test"))
    source = write(tmp_path / "a.jsonl", rows)
    summary = convert(source, tmp_path / "out", format="messages", split_column="split")
    reason = summary.warnings["TEXT_NEAR_DUPLICATE"]["first"]["reason"]
    places = "test.jsonl:1 and train.jsonl:8 (in the input a.jsonl:31 and a.jsonl:8)"
    assert reason == f"1 held-out prompts are nearly training ones, such as {places}"
    off = convert(
        source,
        tmp_path / "off",
        format="messages",
        split_column="split",
        rules={"TEXT_NEAR_DUPLICATE": "off"},
    )
    assert "TEXT_NEAR_DUPLICATE" not in off.warnings


def test_an_exact_copy_that_left_training_is_no_near_duplicate(tmp_path: Path) -> None:
    rows = [chat(sentence(n), f"A{n}", split="train") for n in range(9)] + [
        chat(sentence(4), "A4", split="test")
    ]
    source = write(tmp_path / "a.jsonl", rows)
    summary = convert(source, tmp_path / "out", format="messages", split_column="split")
    assert summary.rows["duplicates"] == 1
    assert overlap(tmp_path / "out") == {"groups": 0, "pictures": 0, "prompts": 0}


def test_a_picture_that_looks_the_same_on_two_sides_is_told_and_other_ones_are_not(tmp_path: Path) -> None:
    for name, data in (("a", jpeg(1)), ("b", jpeg(1, 40)), ("c", jpeg(2)), ("d", jpeg(3))):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    sides = {"a": "train", "c": "train", "b": "test", "d": "test"}
    rows = [caption(n, image=f"{name}.jpg", split=side) for n, (name, side) in enumerate(sides.items())]
    source = write(tmp_path / "in.jsonl", rows)
    for deep in (False, True):
        summary = convert(source, tmp_path / f"out{deep}", format="captions", split_column="split", deep=deep)
        reason = summary.warnings["IMG_NEAR_DUPLICATE"]["first"]["reason"]
        assert "test.jsonl:1 and train.jsonl:1" in reason
        assert overlap(tmp_path / f"out{deep}")["pictures"] == 1


def test_a_picture_that_does_not_decode_is_told_where_it_was_only_looked_at(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.frombytes("L", (80, 80), random.Random(1).randbytes(6400)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(undecodable(buffer.getvalue()))
    source = write(tmp_path / "in.jsonl", [caption(1, image="a.png")])
    summary = convert(source, tmp_path / "out", format="captions")
    assert summary.rows["out"] == 1
    assert summary.warnings["IMG_UNDECODED"]["first"]["source"] == "in.jsonl:1"


def test_looks_agree_with_the_slow_comparison() -> None:
    pick = random.Random(3)
    train = [(pick.getrandbits(64), n) for n in range(200)]
    held = [(look ^ (1 << pick.randrange(64)) ^ (1 << pick.randrange(64)), n) for look, n in train[:50]]
    held += [(pick.getrandbits(64), n) for n in range(50, 100)] + [(0, 100)]
    near = {row for look, row in held if any((look ^ other).bit_count() <= 3 for other, _ in train)}
    assert {row for row, _ in near_pairs(held, train)} == near
    assert near_pairs([(0, 1)], [(0, 2)]) == [], "plain pictures have no look"


def test_a_sketch_does_not_depend_on_its_neighbours_and_short_texts_have_none() -> None:
    text = sentence(1)
    alone = sketches([text])[0].tolist()
    for others in (["", text, ""], [sentence(2), text, "x"], ["a b c", text], [text, "", ""]):
        assert sketches(others)[others.index(text)].tolist() == alone
    assert not sketches(["", "one two three", "7 words are not enough for that"]).any()


def test_sketches_agree_in_about_as_many_slots_as_texts_share() -> None:
    near = far = 0
    for n in range(100):
        words = sentence(n).split()
        changed = [*words]
        changed[n % 40] = "lain"
        one, two, three = sketches([" ".join(words), " ".join(changed), sentence(n + 1000)])
        near += int((one == two).sum()) >= NEAR_SLOTS
        far += int((one == three).sum()) >= NEAR_SLOTS
    assert near >= 95 and far == 0


def test_with_many_rows_a_part_is_compared_and_deep_compares_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leakage, "FREE_ROWS", 10)
    rows = [chat(sentence(n), f"A{n}", split="train") for n in range(300)]
    rows += [chat(sentence(n) + " lagi", "x", split="test") for n in range(300)]
    source = write(tmp_path / "a.jsonl", rows)
    some = convert(source, tmp_path / "some", format="messages", split_column="split")
    assert 10 <= overlap(tmp_path / "some")["prompts"] < 100
    assert "--deep looks at all" in some.warnings["TEXT_NEAR_DUPLICATE"]["first"]["reason"]
    convert(source, tmp_path / "all", format="messages", split_column="split", deep=True)
    assert overlap(tmp_path / "all")["prompts"] >= 295


def test_a_question_asked_of_many_pictures_is_not_compared() -> None:
    question = "What is the most likely finding in the picture shown here?"
    record = Record(id="1", group="", source="x", fields={"question": question}, images=("a.png",))
    assert prompt_text(record) == ""
    assert prompt_text(Record(id="1", group="", source="x", fields={"question": question})) == question


def test_without_a_held_out_side_nothing_is_compared(tmp_path: Path) -> None:
    convert(write(tmp_path / "a.jsonl", [caption(1)]), tmp_path / "out", format="captions", validation=0)
    assert "overlap" not in json.loads((tmp_path / "out" / "manifest.json").read_text())


def test_texts_that_no_rule_looks_at_leave_no_file(tmp_path: Path) -> None:
    rules = RuleReporter({"TEXT_NEAR_DUPLICATE": "off"})
    LeakageCheck(tmp_path, rules, WrittenRows(), Compared.of(rules, groups=False, deep=False))
    assert not list(tmp_path.iterdir())


def test_one_post_with_two_labels_is_told_by_its_link_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(KINDS["png"])
    rows = [
        f"t{n},https://x.id/1,x{n},a.png,{label},Analisis {n}" for n, label in enumerate(("fitnah", "netral"))
    ]
    (tmp_path / "in.csv").write_text("title,link,text,img_path,label,analisis\n" + "\n".join(rows) + "\n")
    summary = convert(tmp_path / "in.csv", tmp_path / "out", format="dfk_csv", validation=0)
    assert "is of the same post" in summary.warnings["TWO_LABELS"]["first"]["reason"]


def test_two_conversions_into_one_folder_are_kept_apart(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [caption(n) for n in range(5)])
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with Folder(tmp_path / "out").alone():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ConfigError, match="another conversion writes into it"):
        convert(source, tmp_path / "out", format="captions")
    leave.set()
    thread.join()
    assert convert(source, tmp_path / "out", format="captions").fresh
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_lock_that_a_killed_run_left_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    source = write(tmp_path / "a.jsonl", [caption(1)])
    assert convert(source, tmp_path / "out", format="captions", validation=0).rows["out"] == 1


def test_a_contradicting_label_can_be_let_through_and_read_refuses_it(tmp_path: Path) -> None:
    table = "input,output,_label\nKlaim,Label: **Fitnah.** penjelasan: Karena.,Netral\n"
    (tmp_path / "in.csv").write_text(table)
    strict = convert(tmp_path / "in.csv", tmp_path / "a", format="dfk_text", validation=0)
    assert list(strict.codes) == ["LABEL_CONFLICT"]
    rules: Any = {"LABEL_CONFLICT": "warn"}
    loose = convert(tmp_path / "in.csv", tmp_path / "b", format="dfk_text", validation=0, rules=rules)
    assert loose.rows["out"] == 1 and "LABEL_CONFLICT" in loose.warnings
    assert rows_of(tmp_path / "b", "train")[0]["meta"]["gold"]["label"] == "fitnah"
    (item,) = read(tmp_path / "in.csv", "dfk_text")
    assert not isinstance(item, Record) and item.code == "LABEL_CONFLICT"


INSTRUCTION = (
    "Bacalah unggahan di bawah ini dengan teliti, lalu tentukan apakah isinya disinformasi, fitnah, ujaran kebencian "
    "atau netral, dan jelaskan alasannya dalam satu paragraf yang mudah dimengerti oleh masyarakat umum."
)


def asked(n: int, format: str) -> dict[str, Any]:
    """A row that asks about its own short post with a long instruction that all rows have."""
    post = sentence(n)
    if format == "alpaca":
        return {"instruction": INSTRUCTION, "input": post, "output": f"A{n}"}
    return chat(f"{INSTRUCTION}\n\n{post}", f"A{n}")


@pytest.mark.parametrize("format", ["alpaca", "messages"])
@pytest.mark.parametrize("to", ["messages", "swift"])
@pytest.mark.parametrize("count", [8, 30, 1300])
def test_posts_with_one_long_instruction_are_not_alike_and_copies_of_a_post_are(
    format: str, to: str, count: int, tmp_path: Path
) -> None:
    rows = [asked(n, format) | {"split": "test" if n % 4 == 3 else "train"} for n in range(count)]
    copy = asked(4, format)
    text = str(copy.get("input") or copy["messages"][0]["content"])
    near = text + " pagi"
    copy = copy | {"input": near} if format == "alpaca" else chat(near, "lain")
    rows.append(copy | {"split": "test"})
    rules = {"SIZE_RECOMMENDED": "off"}
    done = convert(rows, tmp_path / "out", format=format, to=to, split_column="split", rules=rules)
    lines = [line for line in rows_of(tmp_path / "out", "warnings") if line["code"] == "TEXT_NEAR_DUPLICATE"]
    assert [(line["source"], line["partner"]) for line in lines] == [(f"memory:{count + 1}", "memory:5")]
    assert done.rows["out"] == count + 1


@pytest.mark.parametrize("tasks", [2, 10])
def test_posts_of_many_tasks_are_not_alike(tasks: int, tmp_path: Path) -> None:
    rows = [
        chat(
            f"{sentence(9000 + n % tasks, 30)}\n\n{sentence(n)}",
            f"A{n}",
            split="test" if n % 7 == 3 else "train",
        )
        for n in range(400)
    ]
    near = rows[14]["messages"][0]["content"] + " pagi"
    rows.append(chat(near, "lain", split="test"))
    convert(rows, tmp_path / "out", format="messages", split_column="split")
    lines = [line for line in rows_of(tmp_path / "out", "warnings") if line["code"] == "TEXT_NEAR_DUPLICATE"]
    assert [(line["source"], line["partner"]) for line in lines] == [("memory:401", "memory:15")]


@pytest.mark.parametrize("to", ["messages", "swift", "sharegpt", "openai", "prompt_completion"])
@pytest.mark.parametrize("split", ["files", "column", "sita"])
def test_each_line_says_where_its_own_row_came_from_and_where_it_went(
    to: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ways: dict[str, dict[str, Any]] = {
        "files": {"validation_file": "b.jsonl"},
        "column": {"split_column": "split"},
        "sita": {"split": "sita", "validation": 0.5},
    }
    if split == "sita" and to not in ("messages", "prompt_completion"):
        pytest.skip("one layout of each kind is enough")
    first = [chat(f"satu {n}", f"A{n}", link=f"l{n % 3}", split="train") for n in range(6)]
    second = [chat(f"dua {n}", f"B{n}", link=f"l{n}", split="validation") for n in range(2, 7)]
    write(tmp_path / "a.jsonl", [*first, *(second if split != "files" else [])])
    write(tmp_path / "b.jsonl", second)
    convert("a.jsonl", "out", format="messages", to=to, rules={"SIZE_RECOMMENDED": "off"}, **ways[split])
    lines = [line for line in rows_of(Path("out"), "warnings") if line["code"] == "GROUP_ACROSS"]
    raw = {
        f"{name}:{at}": row
        for name in ("a.jsonl", "b.jsonl")
        for at, row in enumerate(map(json.loads, Path(name).read_text().splitlines()), start=1)
    }
    assert lines
    for line in lines:
        one, other = raw[line["source"]], raw[line["partner"]]
        assert one["link"] == other["link"] and line["source"] != line["partner"]
        for place, row in ((line["row"], one), (line["partner_row"], other)):
            name, _, number = place.partition(":")
            written = rows_of(Path("out"), name.removesuffix(".jsonl"))[int(number) - 1]
            assert row["messages"][0]["content"] in json.dumps(written)
        assert line["reason"] == "is of the same group as a row of train"
    assert len({line["source"] for line in lines}) == len(lines)
