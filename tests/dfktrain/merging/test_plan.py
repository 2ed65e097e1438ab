"""The plan of a merge names every tensor that changes."""

from __future__ import annotations

from pathlib import Path

from dfktrain.merging.plan import plan_changes
from dfktrain.weights import lora, safetensors_io
from tests.helpers.adapters import EXTRA


def test_a_plan_names_each_changed_tensor_once(base: Path, plain: Path) -> None:
    found = plan_changes(lora.read(plain), safetensors_io.weight_files(base), base)
    assert len(found) == 41 and EXTRA not in found
