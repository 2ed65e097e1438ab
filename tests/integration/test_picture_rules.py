"""What training would refuse of a picture is a reject of the conversion, and what opening changes is counted."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, load_rows
from dfkdata.common.errors import DataError
from dfkdata.media.images import image_size
from dfkdata.media.probe import MAX_ASPECT, inspect
from dfktrain import Collator
from tests.helpers.models import build_processor, image_row, released_template
from tests.helpers.rows import write


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(released_template("qwen3_5_nothink"))


def saved(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.effect_noise((60, 40), 50).convert("RGB"), "JPEG", exif=exif)


def moving() -> bytes:
    frames = [Image.effect_noise((60, 40), 30 + 30 * n) for n in range(3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def convert_pictures(folder: Path, pictures: dict[str, bytes], **how: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    rows = [{"question": f"What is {name}?", "answer": "It.", "image": name} for name in pictures]
    source = write(folder / "in.jsonl", rows)
    return convert(source, folder / "out", format="vqa", **{"validation": 0} | how)


@pytest.mark.parametrize("deep", [False, True])
def test_an_animated_picture_is_a_reject_by_name(deep: bool, tmp_path: Path) -> None:
    summary = convert_pictures(tmp_path, {"a.gif": moving(), "b.jpg": turned()}, deep=deep, validation=0.5)
    assert {code: entry["count"] for code, entry in summary.codes.items()} == {"IMG_ANIMATED": 1}
    assert "IMG_ANIMATED=fix" in summary.codes["IMG_ANIMATED"]["first"]["hint"]
    assert summary.rows["out"] == 1


@pytest.mark.parametrize("materialize", ["link", "copy", "embed"])
@pytest.mark.parametrize("deep", [False, True])
def test_its_first_frame_is_used_if_asked_for(
    materialize: str, deep: bool, processor: Any, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"materialize": materialize, "rules": {"IMG_ANIMATED": "fix"}, "deep": deep}
    summary = convert_pictures(tmp_path, {"a.gif": moving()}, **how)
    assert summary.rows["out"] == 1 and summary.warnings["IMG_ANIMATED"]["count"] == 1
    (row,) = load_rows(tmp_path / "out/train.jsonl")
    assert image_size(row["images"][0]) == (60, 40)
    assert "pixel_values" in Collator(processor)([row])
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"]["changed"]["first_frame"] == 1


def test_the_manifest_counts_what_opening_changes(tmp_path: Path) -> None:
    noise = Image.effect_noise((60, 40), 50)
    pictures = {
        "plain.png": saved(noise),
        "turned.jpg": turned(),
        "clear.png": saved(noise.convert("RGBA")),
        "deep.png": saved(Image.new("I;16", (60, 40), 700)),
        "print.jpg": saved(noise.convert("CMYK"), "JPEG"),
        "palette.gif": saved(noise.convert("P"), "GIF"),
    }
    convert_pictures(tmp_path, pictures)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"]["count"] == 6
    assert manifest["images"]["changed"] == {"from_cmyk": 1, "on_white": 1, "scaled": 1, "turned": 1}


SIDES = [1, 2, 3, 4, 28, 199, 200, 201, 400, 401]


@pytest.mark.parametrize("width", SIDES)
@pytest.mark.parametrize("height", SIDES)
def test_a_shape_is_rejected_exactly_if_training_refuses_it(width: int, height: int, processor: Any) -> None:
    data = saved(Image.new("RGB", (width, height), (9, 99, 200)))
    row = image_row("a", [data], "x", "y")
    if not inspect(data).is_long:
        assert "pixel_values" in Collator(processor)([row])
        return
    with pytest.raises(DataError, match="aspect ratio must be smaller than 200"):
        Collator(processor)([row])


def test_a_long_picture_is_a_reject_by_name_and_turning_does_not_matter(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (MAX_ASPECT * 4 + 4, 4), (9, 99, 200))
    pictures = {
        "a.jpg": saved(wide, "JPEG", exif=exif),
        "b.png": saved(wide),
        "c.png": saved(wide.crop((0, 0, 800, 4))),
    }
    summary = convert_pictures(tmp_path, pictures)
    assert {code: entry["count"] for code, entry in summary.codes.items()} == {"IMG_SHAPE": 2}
    assert "4 x 804" in summary.codes["IMG_SHAPE"]["first"]["reason"]
    assert summary.rows["out"] == 1
    soft = convert_pictures(tmp_path / "soft", pictures, rules={"IMG_SHAPE": "warn"})
    assert soft.rows["out"] == 3 and soft.warnings["IMG_SHAPE"]["count"] == 2
