"""The likelihood that evaluation measures is the loss that training would see on the same rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkdata.rows.messages import before_answer
from dfkeval.backends.transformers import Transformers
from dfkeval.models import loader
from dfkeval.types import GoldAnswer, Likelihood, Request, Sampling
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE


@pytest.fixture(scope="module")
def tiny() -> loader.Loaded:
    return loader.load("tiny", dtype="float32", device="cpu")


def gold_answer(row: dict[str, Any]) -> GoldAnswer:
    asked = before_answer(row["messages"])
    request = Request(
        id=row["id"], messages=asked, images=tuple(row.get("images") or ()), tools=row.get("tools")
    )
    return GoldAnswer(request=request, turn=row["messages"][-1])


def found(
    tiny: loader.Loaded, rows: list[dict[str, Any]], size: int, sampling: Sampling | None = None
) -> dict[str, Likelihood]:
    backend = Transformers(tiny, batch_size=size)
    asked = [gold_answer(row) for row in rows]
    return {each.id: each for each in backend.likelihoods(asked, sampling or Sampling())}


def training_loss(tiny: loader.Loaded, row: dict[str, Any]) -> tuple[float, int]:
    """(summed negative log-likelihood, tokens) of one row as training batches it."""
    batch = Collator(tiny.processor)([row])
    labels = batch.pop("labels")
    with torch.inference_mode():
        logits = tiny.model(**batch).logits.float()
    kept = labels[0, 1:] != IGNORE
    nll = torch.nn.functional.cross_entropy(logits[0, :-1][kept], labels[0, 1:][kept], reduction="sum")
    return float(nll), int(kept.sum())


@pytest.mark.parametrize("size", [1, 8])
def test_likelihoods_equal_the_training_loss_row_by_row(
    tiny: loader.Loaded, rows: list[dict[str, Any]], size: int
) -> None:
    got = found(tiny, rows, size)
    assert any(row.get("images") for row in rows) and any(row.get("tools") for row in rows)
    for row in rows:
        nll, tokens = training_loss(tiny, row)
        each = got[row["id"]]
        assert each.error is None
        assert each.tokens == tokens, row["id"]
        assert each.nll == pytest.approx(nll, rel=1e-4, abs=1e-4), row["id"]
        assert math.isfinite(each.nll) and each.nll > 0


def test_a_row_that_cannot_be_scored_takes_no_other_with_it(
    tiny: loader.Loaded, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    whole = found(tiny, rows, 8)
    pictured = next(row for row in rows if row.get("images"))
    bad = pictured | {"id": "bad", "images": [str(tmp_path / "broken.png")] * len(pictured["images"])}
    few = pictured | {"id": "few", "images": []}
    empty = rows[0] | {
        "id": "empty",
        "messages": [*rows[0]["messages"][:-1], {"role": "assistant", "content": []}],
    }
    got = found(tiny, [bad, *rows, few, empty], 8)
    assert "broken.png" in str(got["bad"].error)
    assert "images" in str(got["few"].error)
    assert got["empty"].error is not None
    for row in rows:
        assert got[row["id"]].nll == pytest.approx(whole[row["id"]].nll, rel=1e-4)


def test_running_out_of_memory_halves_the_batch(
    tiny: loader.Loaded, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dfkeval.backends._local import likelihood

    want = found(tiny, rows, 8)
    plain, sizes = likelihood._forward, []

    def small(batch: Any, model: Any, pad: int) -> list[float]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("full")
        return plain(batch, model, pad)

    monkeypatch.setattr(likelihood, "_forward", small)
    got = found(tiny, rows, 8)
    assert max(sizes) > 2
    for name, each in want.items():
        assert got[name].nll == pytest.approx(each.nll, rel=1e-4)
