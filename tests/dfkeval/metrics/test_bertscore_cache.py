"""The embedding cache gives the same numbers without the encoder, and never another model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkeval.metrics import _bertscore, _embedding_cache, bertscore
from dfkeval.models.text_encoder import TextEncoder
from tests.helpers.runs import minilm

SAID, GOLD = ["a red dog", "kabar bohong", "", "\ud83d"], ["a small dog", "kabar palsu", "x", "y"]


def score(cache: Path, **more: Any) -> np.ndarray:
    found = bertscore.score(SAID, GOLD, cache=cache, **({"model": str(minilm()), "layer": 6} | more))
    return np.stack([found.precision, found.recall, found.f1], axis=1)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the encoder was asked for."""
    seen: list[str] = []
    plain = TextEncoder.encode

    def watched(self: TextEncoder, texts: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(texts)
        return plain(self, texts, *rest, **more)

    monkeypatch.setattr(TextEncoder, "encode", watched)
    return seen


def test_cached_numbers_are_the_same_and_need_no_encoder(tmp_path: Path, encoded: list[str]) -> None:
    first = score(tmp_path)
    assert len(encoded) == 8
    _bertscore.encoder.cache_clear()
    assert np.array_equal(score(tmp_path), first)
    assert len(encoded) == 8
    assert _bertscore.encoder.cache_info().currsize == 0
    assert np.abs(first - np.stack([*vars_of()], axis=1)).max() <= 1e-6


def vars_of() -> list[np.ndarray]:
    found = bertscore.score(SAID, GOLD, model=str(minilm()), layer=6)
    return [found.precision, found.recall, found.f1]


def test_only_new_texts_are_encoded(tmp_path: Path, encoded: list[str]) -> None:
    score(tmp_path)
    bertscore.score(["a new answer"], [GOLD[0]], model=str(minilm()), layer=6, cache=tmp_path)
    assert encoded[8:] == ["a new answer"]


@pytest.mark.parametrize("change", [{"layer": 5}, {"dtype": "bfloat16"}])
def test_another_layer_or_number_type_misses(
    tmp_path: Path, encoded: list[str], change: dict[str, Any]
) -> None:
    score(tmp_path)
    score(tmp_path, **change)
    assert len(encoded) == 16


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"one")
    before = _embedding_cache.identity(str(tmp_path))
    assert before == _embedding_cache.identity(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert _embedding_cache.identity(str(tmp_path)) != before


def test_what_a_killed_process_left_half_written_is_not_read(tmp_path: Path, encoded: list[str]) -> None:
    first = score(tmp_path)
    index = next(tmp_path.glob("*/*.jsonl"))
    index.write_bytes(index.read_bytes()[:-7])
    # One text is encoded again, alone: another batch size moves it by the rounding of fp32, on some processors.
    assert np.abs(score(tmp_path) - first).max() <= 1e-6
    assert len(encoded) == 9
