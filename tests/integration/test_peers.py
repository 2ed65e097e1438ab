"""What other trainers read of our exports, from the folder and in the way in which their documentation opens them.

LLaMA-Factory and ms-swift pin other releases of torch and transformers than this environment has, so their tests
run where somebody has made their packages importable (`pip install --no-deps --target DIR`, PYTHONPATH=DIR)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dfkdata import convert
from tests.helpers.pictures import picture
from tests.helpers.rows import rows_of, write

datasets = pytest.importorskip("datasets")

TOOL = {"type": "function", "function": {"name": "get", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "get", "arguments": {"city": "Bogor"}}}


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


TEXT = {"messages": [turn("system", "Be brief."), turn("user", "Why?"), turn("assistant", "So.")]}
LONGER = {"messages": [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]}
SEEN = {"messages": [turn("user", "What?"), turn("assistant", "Noise.")], "images": ["a.png"]}
TWO = {"messages": [turn("user", "Both?"), turn("assistant", "Noises.")], "images": ["a.png", "b.jpg"]}
TOOLS = {
    "messages": [turn("user", "Rain?"), turn("assistant", "", tool_calls=[CALL]), turn("tool", "no"),
                 turn("assistant", "No.")],
    "tools": [TOOL],
}  # fmt: skip
MIXES = {
    "text": [TEXT, LONGER],
    "pictures": [SEEN, TWO],
    "tools": [TOOLS],
    "all": [TEXT, SEEN, TOOLS, LONGER, TWO],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.png").write_bytes(picture("PNG"))
    (tmp_path / "raw/b.jpg").write_bytes(picture("JPEG"))
    return tmp_path


def written(to: str, rows: list[dict[str, Any]], **how: Any) -> Path:
    """Convert with relative paths, as people do."""
    source = write(Path("raw/in.jsonl"), rows)
    options: dict[str, Any] = {"format": "messages", "to": to, "validation": 0}
    summary = convert(source, "data", **options | how)
    assert summary.rows["out"] == len(rows), summary.codes
    return Path("data")


WAYS: list[dict[str, Any]] = [
    {},
    {"materialize": "copy"},
    {"paths": "absolute"},
]


def info(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "dataset_info.json").read_text()))


@pytest.mark.parametrize("mix", MIXES)
def test_dataset_info_names_exactly_the_columns_that_rows_have(mix: str, here: Path) -> None:
    folder = written("sharegpt", MIXES[mix])
    for entry in info(folder).values():
        loaded = datasets.load_dataset("json", data_files=str(folder / entry["file_name"]), split="train")
        assert sorted(entry["columns"].values()) == sorted(loaded.column_names)


@pytest.mark.parametrize("split", ["hash", "sita", "file"])
def test_each_split_has_its_own_columns(split: str, here: Path) -> None:
    """Rows that move to another file, or leave one, take their columns with them."""
    many = [{"messages": [turn("user", f"q{n}"), turn("assistant", f"a{n}")]} for n in range(30)]
    if split == "file":  # the training copy of a held-out row leaves the training file
        held = write(Path("raw/held.jsonl"), [SEEN])
        write(Path("raw/in.jsonl"), [*many, SEEN])
        convert("raw/in.jsonl", "data", format="messages", to="sharegpt", validation_file=held)
    else:
        written("sharegpt", [*many, SEEN, TWO, TOOLS], validation=0.4, split=split)
    entries = info(Path("data"))
    assert {entry["file_name"] for entry in entries.values()} == {"train.jsonl", "validation.jsonl"}
    for name, entry in entries.items():
        keys = {key for row in rows_of(Path("data"), name.removeprefix("dfk_")) for key in row}
        assert set(entry["columns"].values()) == keys
    if split == "file":
        assert "images" not in entries["dfk_train"]["columns"]


@pytest.fixture
def llama_factory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if find_spec("llamafactory") is None:
        pytest.skip("LLaMA-Factory is not installed")
    if find_spec("torchaudio") is None:  # imported at the top of a module, used for sound only
        stand_in = ModuleType("torchaudio")
        stand_in.__spec__ = ModuleSpec("torchaudio", None)
        monkeypatch.setitem(sys.modules, "torchaudio", stand_in)
    converter = pytest.importorskip("llamafactory.data.converter", exc_type=ImportError)
    parser = pytest.importorskip("llamafactory.data.parser", exc_type=ImportError)
    yield SimpleNamespace(converter=converter, parser=parser)


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("mix", MIXES)
def test_llama_factory_reads_every_row_and_finds_every_picture(
    mix: str, how: dict[str, Any], llama_factory: Any, here: Path
) -> None:
    folder = written("sharegpt", MIXES[mix], **how)
    (attributes,) = llama_factory.parser.get_dataset_list(["dfk_train"], str(folder))
    path = folder / attributes.dataset_name
    loaded = datasets.load_dataset("json", data_files=str(path), split="train")
    convert_row = llama_factory.converter.get_dataset_converter(
        attributes.formatting, attributes, SimpleNamespace(media_dir=str(folder))
    )
    for row, given in zip(loaded, MIXES[mix], strict=True):
        aligned = convert_row(row)
        turns = [*aligned["_prompt"], *aligned["_response"]]
        assert len(turns) == sum(one["role"] != "system" for one in given["messages"])
        pictures = aligned["_images"] or []
        assert len(pictures) == len(given.get("images", []))
        assert all(Path(one).is_file() for one in pictures)
        assert sum(one["content"].count("<image>") for one in turns) == len(pictures)
        assert bool(aligned["_tools"]) == ("tools" in given)


@pytest.mark.parametrize("how", [*WAYS, {"materialize": "embed"}], ids=str)
@pytest.mark.parametrize("mix", MIXES)
def test_ms_swift_takes_every_row(mix: str, how: dict[str, Any], here: Path) -> None:
    peer = pytest.importorskip("swift.template.template_inputs", exc_type=ImportError)
    inputs = peer.StdTemplateInputs
    folder = written("swift", MIXES[mix], **how)
    os.chdir(folder)  # it looks for pictures from the current folder, then from ROOT_IMAGE_DIR
    for row, given in zip(rows_of(Path(), "train"), MIXES[mix], strict=True):
        read = inputs.from_dict(row)
        pictures = read.images
        assert len(pictures) == len(given.get("images", []))
        assert all(one.startswith("data:image/") or Path(one).is_file() for one in pictures)
        assert sum(str(one["content"]).count("<image>") for one in read.messages) == len(pictures)
        assert bool(read.tools) == ("tools" in given)


@pytest.mark.parametrize("layout", ["messages", "prompt_completion", "swift"])
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_datasets_casts_and_decodes_the_pictures(layout: str, how: dict[str, Any], here: Path) -> None:
    """`datasets` opens paths from the current folder, so one goes there, or writes absolute paths."""
    folder = written(layout, MIXES["pictures"], **how)
    if how.get("paths") != "absolute":
        os.chdir(folder)
    path = here / "data/train.jsonl"
    loaded = datasets.load_dataset("json", data_files=str(path), split="train")
    loaded = loaded.cast_column("images", datasets.List(datasets.Image()))
    assert [[image.size for image in row["images"]] for row in loaded] == [[(60, 40)], [(60, 40)] * 2]


@pytest.mark.parametrize("layout", ["messages", "prompt_completion"])
def test_trl_places_every_picture(layout: str, here: Path) -> None:
    prepare = pytest.importorskip("trl.data_utils").prepare_multimodal_messages
    folder = written(layout, MIXES["all"], paths="absolute")
    for row, given in zip(rows_of(folder, "train"), MIXES["all"], strict=True):
        turns = row["messages"] if layout == "messages" else [*row["prompt"], *row["completion"]]
        placed = [
            part["image"]
            for one in prepare(turns, images=row["images"])
            for part in one["content"]
            if part["type"] == "image"
        ]
        assert placed == row["images"] and len(placed) == len(given.get("images", []))
        assert all(Path(one).is_file() for one in placed)


def test_openai_rows_hold_addresses_that_a_server_takes(here: Path) -> None:
    folder = written("openai", MIXES["pictures"], materialize="embed")
    for row in rows_of(folder, "train"):
        parts = [part for part in row["messages"][0]["content"] if part["type"] == "image_url"]
        assert parts and all(part["image_url"]["url"].startswith("data:image/") for part in parts)
