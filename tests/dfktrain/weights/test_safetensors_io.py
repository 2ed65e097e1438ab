"""A rewritten safetensors file differs from its source only inside the tensors that were changed."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from dfkdata.common.errors import DataError
from dfktrain.weights import safetensors_io
from dfktrain.weights.safetensors_io import open_tensors, read_tensor, read_tensors, rewrite, weight_files
from tests.helpers.adapters import released


@pytest.fixture(scope="module")
def base(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model as released models lie on disk."""
    return released(base_folder, tmp_path_factory.mktemp("released") / "model")


def test_writing_holds_one_tensor_in_memory(base: Path, tmp_path: Path) -> None:
    file = weight_files(base)[0]
    largest = max(entry.end - entry.start for entry in file.entries)
    whole = file.path.stat().st_size
    tracemalloc.start()
    rewrite(file, tmp_path / "copy", lambda entry, old: old)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * largest + (1 << 17) < whole
    assert (tmp_path / "copy").read_bytes() == file.path.read_bytes()


def test_only_the_bytes_of_changed_tensors_differ_and_other_types_are_copied(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.ones(3), "b": torch.arange(4), "c": torch.full((2, 2), 2.0, dtype=torch.bfloat16)}
    save_file(tensors, str(tmp_path / "old.safetensors"), {"note": "kept"})
    source = open_tensors(tmp_path / "old.safetensors")
    rewrite(source, tmp_path / "new.safetensors", lambda entry, old: old * 3 if entry.name == "a" else None)
    old, new = source.path.read_bytes(), (tmp_path / "new.safetensors").read_bytes()
    (changed,) = [entry for entry in source.entries if entry.name == "a"]
    assert (old[: changed.start], old[changed.end :]) == (new[: changed.start], new[changed.end :])
    assert read_tensor(tmp_path / "new.safetensors", "a").tolist() == [3.0] * 3
    names = [name for name, _ in read_tensors(tmp_path / "new.safetensors", ["c", "b"])]
    assert names == ["c", "b"] and source.shapes == {"a": (3,), "b": (4,), "c": (2, 2)}


def test_a_new_value_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, str(tmp_path / "old.safetensors"))
    with pytest.raises(DataError, match="the merged tensor a holds NaN or infinity"):
        rewrite(
            open_tensors(tmp_path / "old.safetensors"),
            tmp_path / "new",
            lambda entry, old: old * float("nan"),
        )


def test_several_weight_files_need_an_index_that_names_their_tensors(base: Path, tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    (tmp_path / "model-2.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="several weight files"):
        weight_files(tmp_path)
    index = tmp_path / safetensors_io.INDEX
    index.write_text(json.dumps({"weight_map": {"lost": "model-1.safetensors"}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"tensor lost is not in model-1\.safetensors"):
        weight_files(tmp_path)
