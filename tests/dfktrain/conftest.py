"""Fixtures of the trainer's tests, made with `tests.helpers.models`."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common import media_roots
from tests.fakes.fake_hub import TOKEN, Hub, running
from tests.helpers.models import (
    build_model,
    build_processor,
    image_row,
    released_template,
    text_row,
    tool_row,
    write_rows,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small are slower on several threads, and very slow where other work shares the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def pictures_anywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Rows of these tests name the pictures of the session, which lie beside each test's own folder.

    Undone at the end of each module: a worker may go on with tests of another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_roots, "_allowed", [str(tmp_path_factory.getbasetemp().resolve())])
        yield


@pytest.fixture(scope="session", autouse=True)
def libraries_are_no_garbage() -> Iterator[None]:
    """Every start of a Trainer collects garbage, which takes a second to walk over what these libraries hold."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from transformers import Trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def templates_are_compiled_once() -> Iterator[None]:
    """Every saved adapter gets PEFT's card, whose template takes a tenth of a short run to compile."""
    from jinja2 import Environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", functools.lru_cache(maxsize=32)(Environment.compile))
        yield


@pytest.fixture(autouse=True)
def no_drawn_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no curves, which takes as long as a few steps, unless the test asks for `drawn_curves`."""
    if "drawn_curves" not in request.fixturenames:
        monkeypatch.setattr("dfktrain.reports.curves.plot.available", lambda: False)


@pytest.fixture
def drawn_curves() -> None:
    """Runs of this test draw their curves."""


@pytest.fixture(scope="session")
def processor() -> Any:
    """The released Qwen3.5 template without thinking."""
    return build_processor(released_template("qwen3_5_nothink"))


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, processor: Any) -> Path:
    """The random model and its processor on disk."""
    folder = tmp_path_factory.mktemp("base")
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def model(processor: Any) -> Any:
    """A fresh random model in memory."""
    return build_model(processor)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six drawn pictures of different sizes and colours."""
    from PIL import Image, ImageDraw

    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index, (width, height) in enumerate([(64, 64), (96, 48), (40, 80), (64, 32), (120, 120), (33, 65)]):
        image = Image.new("RGB", (width, height), (40 * index, 200 - 30 * index, 90))
        ImageDraw.Draw(image).ellipse((5, 5, width - 6, height - 6), fill=(255 - 40 * index, 20, 20 * index))
        paths.append(str(folder / f"{index}.png"))
        image.save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def rows(pictures: list[str]) -> list[dict[str, Any]]:
    """Eight rows of all kinds: text, one image, two images, tools, long and short."""
    return [
        text_row("t1", "berita ini", "Label: Netral\n\nAnalisis: benar"),
        image_row("i1", pictures[:1], "a red circle", "Label: Fitnah"),
        tool_row("c1", pictures[1:2]),
        text_row(
            "t2",
            "berita ini tidak benar dan menyesatkan pembaca " * 4,
            "Label: Fitnah\n\nAnalisis: tidak benar",
        ),
        image_row("i2", pictures[2:4], "two", "Label: Netral dan benar"),
        tool_row("c2", pictures[4:5]),
        image_row("i3", pictures[5:6], "pembaca " * 9, "blue square"),
        text_row("t3", "x", "y"),
    ]


@pytest.fixture
def train_file(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """The eight rows on disk."""
    return write_rows(tmp_path / "train.jsonl", rows)


@pytest.fixture
def held_file(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """The eight rows under other ids, to validate on."""
    return write_rows(tmp_path / "held.jsonl", [row | {"id": f"held {row['id']}"} for row in rows])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine, an own cache, and a token."""
    import huggingface_hub.constants as constants

    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield found
