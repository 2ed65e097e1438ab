"""Both engines on one GPU, the real 0.8B shape and the tiny model: what `bench/gpu_engines.py` measures, held
to bars.

DFK_GPU_WORK=DIR keeps the measured pieces there, so that a run that was cut off goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dfktrain.engines import GDN_LIMIT
from tests.helpers.places import ROOT

pytestmark = pytest.mark.gpu
SCRIPT = ROOT / "bench/gpu_engines.py"


@pytest.fixture(scope="module", params=["real", "tiny"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    kept = os.environ.get("DFK_GPU_WORK")
    folder = Path(kept) / request.param if kept else tmp_path_factory.mktemp(request.param)
    engines = ["transformers", *(["unsloth"] if importlib.util.find_spec("unsloth") else [])]
    words = [sys.executable, SCRIPT, "--work", folder, "--shape", request.param, "--engines", *engines]
    done = subprocess.run(words, capture_output=True, text=True)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "table.json").read_text())


def test_the_mask_is_the_same_in_every_engine(measured: dict[str, Any]) -> None:
    masks = {piece["mask"] for name, piece in measured["pieces"].items() if name.startswith("gradient-")}
    assert len(masks) == 1


def test_the_gradient_is_as_faithful_as_plain_autocast(measured: dict[str, Any]) -> None:
    off = measured["one_minus_cosine"]
    engines = set(off) & {"transformers", "unsloth"}
    assert engines
    for name in engines:
        assert off[name] <= 1.5 * min(off["plain"], off["plain_torch"]), name


def test_the_losses_of_the_engines_agree_within_bf16_noise(measured: dict[str, Any]) -> None:
    if "largest_loss_difference" not in measured:
        pytest.skip("unsloth is not installed")
    assert measured["largest_loss_difference"] <= 0.05


def test_saved_adapters_reload_and_generate(measured: dict[str, Any]) -> None:
    texts = [piece["text"] for name, piece in measured["pieces"].items() if name.startswith("reload-")]
    assert texts and all(texts)


def test_the_loss_falls_in_every_engine(measured: dict[str, Any]) -> None:
    runs = {name: piece["losses"] for name, piece in measured["pieces"].items() if "losses" in piece}
    assert runs
    for name, losses in runs.items():
        assert losses[-1] < losses[0], name


def test_the_kernels_of_both_engines_compute_the_gated_delta_rule(measured: dict[str, Any]) -> None:
    found = [piece["delta_rule"] for piece in measured["pieces"].values() if piece.get("delta_rule")]
    assert found and max(value for one in found for value in one.values()) <= GDN_LIMIT
