"""Texts longer than the encoder reads: cut and flagged, or read whole in windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkeval.metrics import bertscore
from dfkeval.models.text_windows import cut_windows
from tests.helpers.runs import minilm

SHORT = ["a red dog", "kabar bohong", "", "狗在跑"]


def rows(scores: Any) -> np.ndarray:
    return np.stack([scores.precision, scores.recall, scores.f1], axis=1)


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {"model": str(minilm()), "layer": 6}


@given(
    st.integers(0, 700), st.integers(4, 60), st.sampled_from([([101], [102]), ([], [1]), ([5], []), ([], [])])
)
@settings(max_examples=200, deadline=None)
def test_kept_rows_of_all_windows_are_the_text(
    count: int, limit: int, marks: tuple[list[int], list[int]]
) -> None:
    before, after = marks
    ids = [*before, *range(1000, 1000 + count), *after]
    windows = cut_windows(ids, limit, [*before, *after])
    assert [each for window in windows for each in window.ids[window.start : window.stop]] == ids
    for window in windows:
        assert len(window.ids) <= max(limit, 1)
        assert window.ids[: len(before)] == before and window.ids[len(window.ids) - len(after) :] == after


def test_inner_tokens_have_context_on_both_sides() -> None:
    windows = cut_windows([101, *range(1000, 2000), 102], 102, [101, 102])
    for window in windows[1:-1]:
        assert window.start > 20 and len(window.ids) - window.stop > 20


def test_short_texts_have_the_same_numbers_with_windows(options: dict[str, Any]) -> None:
    plain, windowed = (
        bertscore.score(SHORT, SHORT[::-1], windows=windows, **options) for windows in (False, True)
    )
    assert np.abs(rows(plain) - rows(windowed)).max() <= 1e-6


def test_a_difference_behind_the_limit_is_seen_with_windows_only(options: dict[str, Any]) -> None:
    same = "the dog runs on the grass near the water " * 80
    said, gold = same + "a red car burns " * 30, same + "two birds sing in a tree " * 30
    plain = bertscore.score([said], [gold], **options)
    whole = bertscore.score([said], [gold], windows=True, **options)
    assert plain.truncated.tolist() == [True] and plain.f1[0] == pytest.approx(1.0, abs=1e-6)
    assert whole.truncated.tolist() == [False] and whole.f1[0] < 0.99
    again = bertscore.score([said], [said], windows=True, **options)
    assert 1 - 1e-6 <= again.f1[0] <= 1.0


def test_a_long_text_does_not_depend_on_the_batch(options: dict[str, Any]) -> None:
    long = " ".join(f"kata{index % 97}" for index in range(900))
    alone = bertscore.score([long], ["kata1 kata2"], windows=True, batch_tokens=512, **options)
    beside = bertscore.score([long, "x"], ["kata1 kata2", long], windows=True, batch_tokens=2048, **options)
    assert np.abs(rows(alone)[0] - rows(beside)[0]).max() <= 1e-6
    assert not beside.truncated.any()


def test_windows_never_answer_from_the_cache_of_cut_texts(options: dict[str, Any], tmp_path: Path) -> None:
    long = "the dog runs " * 300
    for windows in (False, True):
        scores = bertscore.score([long], ["a dog"], windows=windows, cache=tmp_path, **options)
        fresh = bertscore.score([long], ["a dog"], windows=windows, **options)
        assert scores.truncated.tolist() == [not windows]
        assert np.abs(rows(scores) - rows(fresh)).max() <= 1e-6
    assert len(list(tmp_path.iterdir())) == 2


def test_idf_counts_the_whole_text_with_windows(options: dict[str, Any]) -> None:
    long = "the dog runs " * 300 + "zebra"
    scores = bertscore.score([long, "a zebra"], [long, "a dog"], windows=True, idf=True, **options)
    assert np.isfinite(rows(scores)).all() and (rows(scores) <= 1.0).all()
