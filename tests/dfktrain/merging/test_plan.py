"""The plan of a merge names every tensor that changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import DataError
from dfkeval.models import adapters, metadata
from dfktrain import hub
from dfktrain.merging.plan import plan_changes, read_config
from dfktrain.merging.probes import is_vision_model
from dfktrain.training import checkpoints
from dfktrain.weights import lora, safetensors_io
from tests.helpers.adapters import EXTRA


def test_a_plan_names_each_changed_tensor_once(base: Path, plain: Path) -> None:
    found = plan_changes(lora.read(plain), safetensors_io.weight_files(base), base)
    assert len(found) == 41 and EXTRA not in found


@pytest.mark.parametrize("damaged", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"a": 1', b"[" * 100_000])
@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_config, "config.json"),
        (is_vision_model, "config.json"),
        (adapters.read_config, adapters.CONFIG_FILE),
        (metadata.read, metadata.NAME),
        (safetensors_io.weight_files, safetensors_io.INDEX),
        (checkpoints.token_counts, checkpoints.COMPLETE),
        (lambda folder: hub.public_content(folder / adapters.CONFIG_FILE), adapters.CONFIG_FILE),
        (lambda folder: hub.public_content(folder / metadata.NAME), metadata.NAME),
    ],
)
def test_a_damaged_file_of_a_model_is_an_error_that_names_it(
    read: Callable[[Path], Any], name: str, damaged: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read(tmp_path)
