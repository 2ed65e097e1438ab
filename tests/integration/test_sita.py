"""SITA's splits and its cap for pictures, repeated; what is expected was returned by its published code.

`python -m tools.sita_golden CHECKOUT` made them; commit and packages stand in tests/golden/sita/source.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dfkdata import convert
from dfkdata.common.errors import ConfigError
from dfkdata.media.images import open_image
from dfkeval import EvalConfig, evaluate
from dfkeval.backends import Capabilities, Completion, Request, Sampling
from dfkeval.backends._local import prompts, vllm_engine
from dfkeval.backends._openai import protocol
from tests.helpers.places import GOLDEN
from tests.helpers.rows import caption, rows_of, write
from tools import sita_golden

SPLITS = json.loads((GOLDEN / "sita" / "splits.json").read_text(encoding="utf-8"))


def ours(case: dict[str, Any], folder: Path, out: Path) -> None:
    """Convert the table of a case with the options that mean the same."""
    options = case["options"]
    train = sita_golden.table(folder, "train", case["loader"])
    extra: dict[str, Any] = {}
    if options.get("fixed"):
        extra["validation_file"] = sita_golden.table(folder, "val", case["loader"], sita_golden.ROWS // 2)
    else:
        extra["validation"] = round(1 - options["train_ratio"], 12)
    names = {"subsample_ratio": "subsample", "max_samples": "max_samples", "seed": "seed"}
    extra |= {name: options[key] for key, name in names.items() if key in options}
    convert(train, out, format=case["format"], split="sita", images=folder, **extra)


@pytest.mark.parametrize("case", SPLITS, ids=lambda case: f"{case['loader']}-{case['options']}")
def test_a_split_has_the_rows_and_the_order_of_sita_s_loader(case: dict[str, Any], tmp_path: Path) -> None:
    ours(case, tmp_path / "in", tmp_path / "out")
    for split in ("train", "validation"):
        texts = [row["messages"][-1]["content"][0]["text"] for row in rows_of(tmp_path / "out", split)]
        assert [int(text.rsplit(" ", 1)[-1]) for text in texts] == case[split], split


def test_the_manifest_counts_the_labels_of_the_rows_that_each_split_got(tmp_path: Path) -> None:
    ours(SPLITS[1], tmp_path / "in", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    counted = manifest["labels"]["label"]
    for split in ("train", "validation"):
        assert sum(counted[split].values()) == len(SPLITS[1][split])
    assert sum(counted["raw"].values()) == 31


def test_split_sita_refuses_a_split_that_sita_does_not_have(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [caption(n) for n in range(10)])
    with pytest.raises(ConfigError, match="training and validation only"):
        convert(source, tmp_path / "out", format="captions", split="sita", test_file=source)


@pytest.mark.parametrize(("loader", "format"), sita_golden.TARGETS)
def test_raw_labels_reproduce_sita_s_training_targets(loader: str, format: str, tmp_path: Path) -> None:
    spellings = sita_golden.SPELLINGS
    source = sita_golden.table(tmp_path, "train", loader, len(spellings), spellings)
    labels = "raw" if loader.endswith("v1") else "raw-lower"
    convert(
        source, tmp_path / "out", format=format, split="sita", validation=0, images=tmp_path, labels=labels
    )
    found = [row["messages"][-1]["content"][0]["text"] for row in rows_of(tmp_path / "out", "train")]
    assert found == json.loads((GOLDEN / "sita" / "targets.json").read_text(encoding="utf-8"))[loader]


PICTURES = json.loads((GOLDEN / "sita" / "pictures.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[int, int]], Path]:
    """Return the file of a picture; each is drawn and packed once."""
    folder = tmp_path_factory.mktemp("drawn")

    def of(mode: str, size: tuple[int, int]) -> Path:
        path = folder / f"{mode}-{size[0]}-{size[1]}.png"
        if not path.exists():
            sita_golden.picture(mode, size).save(path, compress_level=1)
        return path

    return of


@pytest.mark.parametrize("case", PICTURES, ids=lambda case: f"{case['mode']}-{case['size']}-{case['cap']}")
def test_max_side_gives_the_pixels_of_sita_s_evaluation(
    case: dict[str, Any], drawn: Callable[[str, tuple[int, int]], Path]
) -> None:
    path = drawn(case["mode"], tuple(case["size"]))
    found = open_image(path, max_side=case["cap"])
    assert (found.mode, list(found.size)) == ("RGB", case["resized"])
    assert sha256(found.tobytes()).hexdigest() == case["sha256"]


def test_a_picture_below_the_cap_keeps_its_size(drawn: Callable[[str, tuple[int, int]], Path]) -> None:
    assert open_image(drawn("RGB", (640, 480)), max_side=5000).size == (640, 480)


class Recording:
    """A backend that keeps the requests."""

    info: ClassVar[dict[str, Any]] = {"kind": "recording"}

    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.requests: list[Request] = []

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            self.requests.append(request)
            yield Completion(id=request.id, text="Label: netral\n\nAnalisis: isi")

    def close(self) -> None:
        """Nothing is held."""


def evaluation(folder: Path, **options: Any) -> EvalConfig:
    """An evaluation of two posts with pictures of 600 x 300 pixels."""
    sita_golden.table(folder, "train", "dfk_vlm_dataset_v1", 2)
    for path in (folder / "images").iterdir():
        sita_golden.picture("RGB", (600, 300)).save(path)
    convert(folder / "train.csv", folder / "data", format="dfk_csv", images=folder, validation=0)
    backend = {"kind": "scripted", "completions": str(folder / "none.jsonl")}
    data = folder / "data" / "train.jsonl"
    return EvalConfig.model_validate({"data": data, "backend": backend, "metrics": ["labels"]} | options)


def test_the_cap_of_an_evaluation_reaches_every_request_and_is_part_of_the_question(tmp_path: Path) -> None:
    backend = Recording(Capabilities(scales_images=True))
    config = evaluation(tmp_path, max_image_side=100)
    capped = evaluate(config, tmp_path / "capped", backend=backend)
    plain = evaluate(config.model_copy(update={"max_image_side": None}), tmp_path / "plain", backend=backend)
    assert [request.max_image_side for request in backend.requests] == [100, 100, None, None]
    keys = [{sample.id: sample.key for sample in run.samples} for run in (capped, plain)]
    assert keys[0].keys() == keys[1].keys()
    assert all(keys[0][name] != keys[1][name] for name in keys[0])
    with pytest.raises(ConfigError, match="max_image_side"):
        evaluate(config.model_copy(update={"max_image_side": 50}), tmp_path / "capped", backend=backend)


def test_a_backend_that_shows_images_as_they_are_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    backend = Recording(Capabilities())
    with pytest.raises(ConfigError, match="shows images as they are"):
        evaluate(evaluation(tmp_path, max_image_side=100), tmp_path / "run", backend=backend)
    assert not backend.requests


@pytest.mark.parametrize(("side", "size"), [(None, (600, 300)), (600, (600, 300)), (100, (100, 50))])
def test_a_server_and_vllm_and_a_local_model_see_the_same_scaled_picture(
    side: int | None, size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "one.png"
    sita_golden.picture("RGB", (600, 300)).save(path)
    part = {"type": "image"}
    request = Request(
        id="1", messages=[{"role": "user", "content": [part]}], images=(str(path),), max_image_side=side
    )
    expected = open_image(path, max_side=side)
    assert expected.size == size
    payload = protocol.body(request, Sampling(), "m")
    sent = open_image(payload["messages"][0]["content"][0]["image_url"]["url"])
    (local,) = prompts.open_images(request)
    job = vllm_engine.PromptJob("1", "", 1, images=((str(path), size),), max_image_side=side)
    (engine,) = vllm_engine._prompt(job, "")["multi_modal_data"]["image"]
    assert sent.tobytes() == local.tobytes() == engine.tobytes() == expected.tobytes()
