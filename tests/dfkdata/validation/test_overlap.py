"""What files share is found by ids, groups, prompts and bytes, whatever the paths and the layout of the turns."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert
from dfkdata.validation import overlap
from dfkdata.validation.overlap import Overlap, RowFile, RowIndex

WORDS = [f"kata{n}" for n in range(500)]
LONG = " ".join(random.Random(1).choices(WORDS, k=40))


def row(
    name: Any, text: str = "", *, group: str = "", images: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": text or f"a question about {name}"},
        *({"type": "image"} for _ in images),
    ]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "an answer"}]
    return {"id": name, "messages": turns, "images": [*images], "meta": {"group": group or str(name)}} | more


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def shared(train: list[dict[str, Any]], held: list[dict[str, Any]], folder: Path) -> Overlap:
    files = [
        RowFile(str(written(folder / "train.jsonl", *train))),
        RowFile(str(written(folder / "held.jsonl", *held))),
    ]
    with RowIndex(files) as index:
        return index.compare([1], [0])


def png(seed: int, size: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("L", (size, size), random.Random(seed).randbytes(size * size)).save(buffer, "PNG")
    return buffer.getvalue()


OTHER = row("train", "what is the capital", group="g")


@pytest.mark.parametrize(
    ("train", "held", "counts"),
    [
        (row("a"), row("b"), {}),
        (row("a"), row("a", "something else"), {"ids": 1}),
        (row("1"), row(1, "a number for an id"), {"ids": 1}),
        (row("a", group="post"), row("b", group="post"), {"groups": 1}),
        (row("a", group=""), row("b") | {"meta": {}}, {}),
        (row("a", "hello"), row("b", "hello"), {"prompts": 1}),
        (row("a", "hello"), row("b", "hello ") | {"meta": None}, {"prompts": 1}),
        (row("a", LONG), row("b", LONG + " and more"), {"prompts": 1}),
        (row("a", LONG, group="g"), row("b", LONG, group="g"), {"groups": 1, "prompts": 1}),
        (
            row("a", LONG, group="g"),
            row("a", LONG, group="g"),
            {"ids": 1},
        ),  # named once, by the clearest sign
    ],
)
def test_each_kind_is_counted(
    train: dict[str, Any], held: dict[str, Any], counts: dict[str, int], tmp_path: Path
) -> None:
    assert shared([OTHER, train], [row("other", "who was that"), held], tmp_path).counts == counts


@pytest.mark.parametrize("trains_itself", [True, False])
@pytest.mark.parametrize("is_held_itself", [True, False])
def test_a_group_that_is_named_like_a_row_is_found(
    trains_itself: bool, is_held_itself: bool, tmp_path: Path
) -> None:
    """The first row of a group may give it its name, as the first frame of a post does."""
    train = row("g" if trains_itself else "a", group="g")
    held = row("g" if is_held_itself else "b", group="g")
    kind = "ids" if trains_itself and is_held_itself else "groups"
    assert shared([OTHER | {"meta": {"group": "x"}}, train], [row("other"), held], tmp_path).counts == {
        kind: 1
    }


def test_a_text_is_the_same_as_a_string_and_as_parts(tmp_path: Path) -> None:
    plain = row("b", "hello there") | {"messages": [{"role": "user", "content": "hello there"}]}
    assert shared([row("a", "hello there")], [plain], tmp_path).counts == {"prompts": 1}


def test_an_instruction_that_all_rows_share_makes_no_two_of_them_alike(tmp_path: Path) -> None:
    def asked(name: str, seed: int) -> dict[str, Any]:
        return row(name, LONG + "\n" + " ".join(random.Random(seed).choices(WORDS, k=12)))

    train, held = [asked(f"t{n}", n) for n in range(40)], [asked(f"h{n}", 1000 + n) for n in range(30)]
    assert shared(train, held, tmp_path).counts == {}
    twin = asked("twin", 7)
    twin["messages"][0]["content"][0]["text"] += " ya"
    assert shared(train, [*held, twin], tmp_path).counts == {"prompts": 1}


@pytest.mark.parametrize("way", ["copy", "symlink", "embedded", "same path"])
def test_a_picture_is_found_by_its_bytes_under_any_path_and_id(way: str, tmp_path: Path) -> None:
    data, other = png(1), png(2)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(data)
    (tmp_path / "a" / "z.png").write_bytes(other)
    name = "a/x.png"
    if way == "copy":
        (tmp_path / "b.bin").write_bytes(data)
        name = "b.bin"
    elif way == "symlink":
        (tmp_path / "b.png").symlink_to(tmp_path / "a" / "x.png")
        name = "b.png"
    elif way == "embedded":
        name = "data:image/png;base64," + base64.b64encode(data).decode()
    held = [row("z", "see", images=("a/z.png",)), row("q", "look", images=(name,))]
    result = shared([row("p", "see", images=("a/x.png",))], held, tmp_path)
    assert result.counts == {"pictures": 1} and result.examples["pictures"].held == (1, "q")


def test_pictures_that_look_alike_are_found_if_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Image.radial_gradient("L").resize((200, 200)).convert("RGB")
    good.save(tmp_path / "a.jpg", quality=95)
    good.save(tmp_path / "b.jpg", quality=60)
    rows = [row("a", "see", images=("a.jpg",))], [row("b", "look", images=("b.jpg",))]
    result = shared(*rows, tmp_path)
    assert result.counts == {"pictures": 1} and result.looked
    monkeypatch.setattr(overlap, "LOOKED", 1)
    result = shared(*rows, tmp_path)
    assert result.counts == {} and not result.looked


def test_videos_are_compared_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film" * 99)
    (tmp_path / "b.mp4").write_bytes(b"film" * 99)
    (tmp_path / "c.mp4").write_bytes(b"FILM" * 99)
    train = [row("a", videos=["a.mp4"])]
    assert shared(train, [row("b", videos=["c.mp4"])], tmp_path).counts == {}
    assert shared(train, [row("b", videos=["b.mp4"])], tmp_path).counts == {"media": 1}


def test_a_question_about_a_picture_tells_no_two_rows_apart(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(2))
    question = "is there any sign of pneumonia in the left lower lobe of this chest radiograph"
    rows = [row("a", question, images=("a.png",))], [row("b", question, images=("b.png",))]
    assert shared(*rows, tmp_path).counts == {}


def test_posts_with_pictures_are_compared_by_the_fields_that_their_schema_asks_about(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(ord(name)))
    posts = [
        {
            "link": f"l{n}",
            "title": "judul",
            "text": LONG + end,
            "label": "netral",
            "analisis": "benar",
            "img": name,
        }
        for n, (name, end) in enumerate([("a.png", ""), ("b.png", " lagi")])
    ]
    meta = {"schema": "dfk_label", "variant": None}
    rows = [row(post["link"], post["text"], images=(post["img"],)) for post in posts]
    for one in rows:
        one["meta"] |= meta
    assert shared(rows[:1], rows[1:], tmp_path).counts == {"prompts": 1}


def test_only_so_many_rows_as_are_asked_count(tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", row("a"), row("b"))
    held = written(tmp_path / "held.jsonl", row("c"), row("b"))
    for limit, counts in ((None, {"ids": 1}), (2, {"ids": 1}), (1, {})):
        with RowIndex([RowFile(str(train)), RowFile(str(held), limit)]) as index:
            assert index.compare([1], [0]).counts == counts


def test_several_files_on_each_side_are_one_side(tmp_path: Path) -> None:
    names = [["a", "b"], ["c"], ["d"], ["c", "e"]]
    files = [
        RowFile(str(written(tmp_path / f"{n}.jsonl", *(row(name) for name in rows))))
        for n, rows in enumerate(names)
    ]
    with RowIndex(files) as index:
        found = index.compare([2, 3], [0, 1])
        assert found.counts == {"ids": 1} and found.examples["ids"].held == (3, "c")
        assert found.examples["ids"].train == (1, "c")
        assert index.compare([2], [0, 1]).counts == {}


def test_files_without_rows_share_nothing(tmp_path: Path) -> None:
    assert shared([], [], tmp_path).counts == {}
    assert shared([row("a")], [], tmp_path).counts == {}


def test_what_convert_splits_by_groups_shares_no_group(tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{n} {LONG}", "output": f"A{n}", "post": n % 40} for n in range(200)]
    folder = convert(rows, tmp_path / "out", format="alpaca", group_by="post", validation=0.3).folder
    files = [RowFile(str(folder / f"{name}.jsonl")) for name in ("train", "validation")]
    with RowIndex(files) as index:
        assert "groups" not in index.compare([1], [0]).counts
    with RowIndex([files[0], files[0]]) as index:
        assert index.compare([1], [0]).counts == {"ids": index.rows[0]}
