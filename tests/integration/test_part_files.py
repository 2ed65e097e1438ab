"""A file that a part names itself is shown in the place of that part, at every door and beside a list of files."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, load_rows, read
from dfkdata.common.errors import DataError
from dfkdata.media.images import open_image
from dfkdata.rows.huggingface import to_dataset
from dfkdata.rows.part_files import with_part_files
from dfkdata.rows.record import Record
from dfkdata.schemas import load
from dfkeval.evaluation.rows import items_of, read_rows
from dfkeval.runs.config import EvalConfig
from dfktrain.data.collator import Collator
from tests.helpers.models import build_processor, released_template

COLOURS = {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200)}


def picture(name: str) -> Image.Image:
    return Image.new("RGB", (64, 64), COLOURS[name])


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    picture(name).save(buffer, "PNG")
    return buffer.getvalue()


def uri(name: str) -> str:
    return "data:image/png;base64," + base64.b64encode(encoded(name)).decode()


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(released_template("qwen3_5_nothink"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in COLOURS:
        Path(f"{name}.png").write_bytes(encoded(name))


PARTS: dict[str, Any] = {
    "image": lambda name: {"type": "image", "image": f"{name}.png"},
    "path": lambda name: {"type": "image", "path": f"{name}.png"},
    "url": lambda name: {"type": "image", "url": f"{name}.png"},
    "no type": lambda name: {"image": f"{name}.png"},
    "image_url": lambda name: {"type": "image_url", "image_url": {"url": f"{name}.png"}},
    "data URI": lambda name: {"type": "image_url", "image_url": uri(name)},
    "filled with null": lambda name: {"type": "image", "image": f"{name}.png", "text": None, "video": None},
}
IN_MEMORY: dict[str, Any] = {
    "Pillow": lambda name: {"type": "image", "image": picture(name)},
    "bytes": lambda name: {"type": "image", "image": encoded(name)},
}
ROWS: dict[str, tuple[list[str], list[str]]] = {
    "one": (["a!"], []),
    "two": (["a!", "b!"], []),
    "own, then listed": (["a!", "b"], ["b.png"]),
    "listed, then own": (["b", "a!"], ["b.png"]),
    "between": (["b", "a!", "c"], ["b.png", "c.png"]),
    "own, and listed again": (["a!", "b!"], ["a.png", "b.png"]),
}
"""Pictures in the order of their parts, with ! those that the part names itself; and the row's list."""


def row(make: Any, parts: list[str], listed: list[str]) -> dict[str, Any]:
    shown = [make(name[0]) if name.endswith("!") else {"type": "image"} for name in parts]
    question = {"role": "user", "content": [*shown, {"type": "text", "text": "Apa ini?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Warna."}]}
    return {
        "id": "r",
        "messages": [question, answer],
        "images": listed,
        "meta": {"gold": {"answer": "Warna."}},
    }


def colours(images: Any) -> list[str]:
    names = {colour: name for name, colour in COLOURS.items()}
    return [names[open_image(image).getpixel((0, 0))] for image in images]


@pytest.mark.parametrize("way", PARTS)
@pytest.mark.parametrize("case", ROWS)
def test_every_door_shows_the_pictures_in_the_order_of_the_parts(way: str, case: str, processor: Any) -> None:
    parts, listed = ROWS[case]
    if "again" in case and way == "data URI":
        return  # the list names files, and the parts hold bytes
    expected = [name[0] for name in parts]
    raw = row(PARTS[way], parts, listed)
    Path("rows.jsonl").write_text(json.dumps(raw) + "\n")
    (loaded,) = load_rows("rows.jsonl")
    assert colours(loaded["images"]) == expected
    assert [part["type"] for part in loaded["messages"][0]["content"]] == ["image"] * len(parts) + ["text"]
    assert colours(Collator(processor).encode(raw).images) == expected
    assert colours(Collator(processor).encode(loaded).images) == expected
    config = EvalConfig.model_validate(
        {
            "data": "rows.jsonl",
            "schema": "answer",
            "backend": {"kind": "scripted", "completions": "rows.jsonl"},
        }
    )
    (item,) = items_of(read_rows(config), config, load("answer"))
    assert colours(item.request.images) == expected
    convert("rows.jsonl", "out", format="messages", validation=0)
    (written,) = load_rows("out/train.jsonl")
    assert colours(written["images"]) == expected
    (record,) = read("rows.jsonl", "messages", store="store")
    assert isinstance(record, Record) and colours(record.images) == expected
    assert (
        colours([one["image"] if isinstance(one, dict) else one for one in to_dataset([loaded])[0]["images"]])
        == expected
    )


@pytest.mark.parametrize("way", IN_MEMORY)
@pytest.mark.parametrize("case", ROWS)
def test_pictures_in_parts_of_rows_in_memory_are_shown_as_well(way: str, case: str, processor: Any) -> None:
    parts, listed = ROWS[case]
    if "again" in case:
        return
    raw = row(IN_MEMORY[way], parts, listed)
    assert colours(Collator(processor).encode(raw).images) == [name[0] for name in parts]
    assert colours(to_dataset([raw])[0]["images"]) == [name[0] for name in parts]


@pytest.mark.parametrize("way", PARTS)
@pytest.mark.parametrize("listed", [["b.png"], ["a.png", "a.png"], ["b.png", "c.png"]])
def test_a_listed_file_that_no_part_is_left_for_is_an_error_at_every_door(
    way: str, listed: list[str], processor: Any
) -> None:
    raw = row(PARTS[way], ["a!"], listed)
    Path("rows.jsonl").write_text(json.dumps(raw) + "\n")
    told = "row r: parts of its turns name image files themselves, and images lists"
    for use in (Collator(processor).encode, lambda one: to_dataset([one])):
        with pytest.raises(DataError, match=told):
            use(raw)
    with pytest.raises(DataError, match=told):
        list(load_rows("rows.jsonl"))
    done = convert("rows.jsonl", "out", format="messages", validation=0)
    assert [*done.codes] == ["IMG_COUNT"] and "name each file once" in done.codes["IMG_COUNT"]["first"][
        "hint"
    ]


TWO_THINGS: dict[str, dict[str, Any]] = {
    "text with a picture": {"content": [{"type": "text", "text": "a", "image": "a.png"}]},
    "text with a picture, no type": {"content": [{"text": "a", "image": "a.png"}]},
    "a picture with text": {"content": [{"type": "image", "image": "a.png", "text": "a"}]},
    "files of a turn": {"content": [{"type": "text", "text": "a"}], "images": ["a.png"]},
    "a file of a turn": {"content": "a", "image": "a.png"},
    "a video of a turn": {"content": "a", "videos": ["a.mp4"]},
}


@pytest.mark.parametrize("case", TWO_THINGS)
@pytest.mark.parametrize("listed", [[], ["b.png"]])
def test_a_file_where_no_template_shows_it_is_refused_at_every_door(
    case: str, listed: list[str], processor: Any
) -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "b"}]}
    raw = {"id": "r", "messages": [{"role": "user"} | TWO_THINGS[case], answer], "images": listed}
    Path("rows.jsonl").write_text(json.dumps(raw) + "\n")
    told = r"row r: messages\[0\]\.(content|images?|videos): "
    for use in (
        Collator(processor).encode,
        lambda one: to_dataset([one]),
        lambda _: [*load_rows("rows.jsonl")],
    ):
        with pytest.raises(DataError, match=told):
            use(raw)
    done = convert("rows.jsonl", "out", format="messages", validation=0)
    assert [*done.codes] == ["PART_UNKNOWN"]
    if "turn" in case and isinstance(raw["messages"][0]["content"], str):  # type: ignore[index]
        turn = {"from": "human", "value": "a"} | {k: v for k, v in TWO_THINGS[case].items() if k != "content"}
        turns = [turn, {"from": "gpt", "value": "b"}]
        for format in ("sharegpt", "llava"):
            done = convert([{"conversations": turns}], format, format=format, validation=0)
            assert [*done.codes] == ["PART_UNKNOWN"], format


def test_a_call_in_the_older_form_of_openai_is_named() -> None:
    call = {"role": "assistant", "content": "Sebentar.", "function_call": {"name": "f", "arguments": "{}"}}
    done = convert(
        [{"messages": [{"role": "user", "content": "a"}, call]}], "out", format="openai", validation=0
    )
    assert done.codes["TOOL_UNKNOWN"]["first"]["reason"] == "a call in OpenAI's older form"


def test_the_system_text_beside_turns_of_swift_comes_first() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    convert([{"system": "Singkat.", "messages": turns}], "out", format="swift", validation=0)
    (row_,) = load_rows("out/train.jsonl")
    assert [turn["role"] for turn in row_["messages"]] == ["system", "user", "assistant"]


def test_rows_without_files_in_parts_are_the_same_object() -> None:
    bare = row(None, ["b"], ["b.png"])
    assert with_part_files(bare) is bare


@pytest.mark.parametrize("value", [5, ["a.png"], {"name": "a.png"}])
def test_a_part_that_holds_something_else_is_named(value: Any, processor: Any) -> None:
    raw = row(lambda _: {"type": "image", "image": value}, ["a!"], [])
    Path("rows.jsonl").write_text(json.dumps(raw) + "\n")
    for use in (Collator(processor).encode, lambda _: list(load_rows("rows.jsonl"))):
        if isinstance(value, dict):
            continue
        with pytest.raises(DataError, match=r"row r|rows\.jsonl:1"):
            use(raw)
    done = convert("rows.jsonl", "out", format="messages", validation=0)
    assert done.rows["out"] == 0


@pytest.mark.parametrize("way", ["image", "path", "url", "image_url"])
def test_a_file_of_a_part_obeys_the_folders_that_files_of_a_list_obey(way: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    answer = {"role": "assistant", "content": [{"type": "text", "text": "b"}]}
    part = json.loads(json.dumps(PARTS[way]("a")).replace("a.png", "../a.png"))
    rows = {
        "part": {"id": "r", "messages": [{"role": "user", "content": [part]}, answer]},
        "list": {
            "id": "r",
            "messages": [{"role": "user", "content": [{"type": "image"}]}, answer],
            "images": ["../a.png"],
        },
    }
    told = []
    for raw in rows.values():
        Path("data/rows.jsonl").write_text(json.dumps(raw) + "\n")
        with pytest.raises(DataError) as caught:
            list(load_rows("data/rows.jsonl", opens_media=True))
        told.append(str(caught.value))
    assert told[0] == told[1] and "a.png" in told[0]
