"""Rows with video: what the transformers backend shows of them, and who refuses them before anything is asked.
Here a small video processor of the library's interface stands in for the one that needs torchvision."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkdata.common.errors import DataError
from dfkdata.rows.messages import load_rows
from dfkeval import evaluate
from dfkeval.backends import transformers
from dfkeval.evaluation.grading import eval_item
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Request, Sampling, refuse_unseen
from tests.helpers.runs import DFK, answer_text, dfk_gold

torch = pytest.importorskip("torch")

from dfkeval.backends._local.label_probabilities import with_label_probs  # noqa: E402
from dfkeval.models import loader  # noqa: E402
from dfkeval.models.video import video_fault  # noqa: E402
from dfkeval.parsing.label_confidence import with_slot  # noqa: E402
from dfkeval.types import GoldAnswer  # noqa: E402
from dfktrain.data.collator import Collator  # noqa: E402
from tests.dfktrain.data.test_collator_video import TwoFrames, film  # noqa: E402


@pytest.fixture(scope="module")
def loaded() -> Any:
    torch.set_num_threads(1)
    made = loader.load("tiny", dtype="float32", device="cpu")
    made.processor.video_processor = TwoFrames()
    return made


def write(folder: Path, count: int = 3, kind: str = "video") -> Path:
    """Write rows whose first has one video, whose second has none, and whose third has two; by relative
    paths, as people write them."""
    lines = []
    for at in range(count):
        names = [f"{at}{letter}.npy" for letter in ("", "a", "ab")[(1, 0, 2)[at % 3]]]
        for place, name in enumerate(names):
            np.save(folder / name, film(8, 10 * at + place))
        parts = [*({"type": kind} for _ in names), {"type": "text", "text": f"apa {at}"}]
        answer = [{"type": "text", "text": answer_text(dfk_gold(at), DFK)}]
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
        row = {"id": str(at), "messages": turns, "meta": {"schema": "dfk_label", "gold": dfk_gold(at)}}
        lines.append(json.dumps(row | ({f"{kind}s": names} if names else {})))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return Path("rows.jsonl")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    return list(load_rows(write(tmp_path)))


def requests(rows: list[dict[str, Any]]) -> list[Request]:
    return [eval_item(row, DFK).request for row in rows]


def test_the_model_is_shown_what_it_was_trained_on(loaded: Any, rows: list[dict[str, Any]]) -> None:
    backend = transformers.Transformers(loaded)
    for row, request in zip(rows, requests(rows), strict=True):
        prompts, _ = transformers.measured(loaded.processor, [request], Sampling(), videos=True)
        shown = backend._inputs(prompts, [[]])
        trained = Collator(loaded.processor)([row])
        width = shown["input_ids"].shape[1]
        assert prompts[0].tokens == width
        for name in ("input_ids", "mm_token_type_ids"):
            assert torch.equal(shown[name], trained[name][:, :width])
        assert ("video_grid_thw" in shown) == bool(request.videos)
        for name in ("pixel_values_videos", "video_grid_thw") if request.videos else ():
            assert torch.equal(shown[name], trained[name])


def test_answers_probabilities_and_losses_depend_on_the_video_and_on_no_neighbour(
    loaded: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    sampling = Sampling(max_new_tokens=24)
    asked = [with_slot(request, DFK) for request in requests(rows)]

    def ask(size: int) -> tuple[dict[str, Any], dict[str, float]]:
        backend = transformers.Transformers(loaded, batch_size=size)
        answers = {each.id: each for each in backend.generate(asked, sampling)}
        gold = [
            GoldAnswer(request=request, turn=row["messages"][-1])
            for row, request in zip(rows, asked, strict=True)
        ]
        scored = {each.id: each for each in backend.likelihoods(gold, sampling)}
        assert not any(each.error for each in [*answers.values(), *scored.values()])
        return answers, {name: each.nll for name, each in scored.items()}

    (alone, losses), (together, losses_together) = ask(1), ask(3)
    for name, each in alone.items():
        assert together[name].text == each.text
        assert losses_together[name] == pytest.approx(losses[name], rel=1e-5)
    backend = transformers.Transformers(loaded)
    before = backend.fingerprint(asked[0], sampling)
    np.save(tmp_path / "0a.npy", film(8, 99))
    assert backend.fingerprint(asked[0], sampling) != before
    _, changed = ask(3)
    assert abs(changed["0"] - losses["0"]) > 1e-5
    assert changed["1"] == pytest.approx(losses["1"], rel=1e-5)


def test_label_probabilities_see_the_video(loaded: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    asked = [with_slot(request, DFK) for request in requests(rows)]

    def probabilities(batch: list[Request]) -> dict[str, dict[str, float]]:
        prompts, _ = transformers.measured(loaded.processor, batch, Sampling(), videos=True)
        answers = [
            Completion(id=prompt.request.id, text=answer_text(dfk_gold(0), DFK), n_prompt_tokens=99)
            for prompt in prompts
        ]
        pairs = [(prompt.request, prompt.text) for prompt in prompts]
        found = with_label_probs(answers, pairs, loaded.model, loaded.processor, 32_768)
        return {each.id: each.label_probs or {} for each in found}

    together = probabilities(asked)
    for request in asked:
        assert probabilities([request])[request.id] == pytest.approx(together[request.id], abs=1e-5)
        assert len(together[request.id]) == 4
    np.save(tmp_path / "0a.npy", film(8, 97))
    changed = probabilities(asked)
    pairs = [(changed["0"][label], value) for label, value in together["0"].items()]  # one is nearly 1
    assert max(abs(math.log(after / before)) for after, before in pairs) > 1e-4
    assert changed["1"] == pytest.approx(together["1"], abs=1e-6)


def test_a_run_asks_rows_with_video(loaded: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    config = EvalConfig.model_validate(
        {"data": "rows.jsonl", "backend": {"kind": "transformers", "model": "tiny"}, "resamples": 200,
         "metrics": ["validity", "loss"], "sampling": {"max_new_tokens": 4}}
    )  # fmt: skip
    run = evaluate(config, "run", backend=transformers.Transformers(loaded))
    assert not {"request_failed"} & set(run.summary["outcomes"])
    assert run.summary["metrics"]["loss.loss"]["n"] == 3
    keys = [sample.key for sample in run.samples]
    np.save(tmp_path / "0a.npy", film(8, 98))
    assert eval_item(rows[0], DFK).key != keys[0] and eval_item(rows[1], DFK).key == keys[1]


BACKENDS = [
    {"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m"},
    {"kind": "scripted", "completions": "none.jsonl"},
    {"kind": "transformers", "model": "tiny"},
]


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend["kind"])
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_what_is_not_read_is_refused_by_name_before_anything_is_loaded(
    backend: dict[str, Any], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    if backend["kind"] == "transformers" and kind == "video":
        from dfkeval.models.processor import load_processor

        if video_fault(load_processor("tiny")) is None:
            pytest.skip("this machine reads video")
    (tmp_path / "none.jsonl").write_text('{"id": "0", "text": "x"}\n')
    config = EvalConfig.model_validate({"data": str(write(tmp_path, 2, kind)), "backend": backend})
    with pytest.raises(DataError, match=rf"rows\.jsonl: row '0' holds {kind}[:,] .*leave|install"):
        evaluate(config, "run")
    assert not (tmp_path / "run" / "completions.jsonl").exists()


def test_a_video_in_the_list_alone_is_not_left_out_silently() -> None:
    request = Request(id="1", messages=[{"role": "user", "content": "x"}], videos=("a.mp4",))
    with pytest.raises(DataError, match="hold video"):
        refuse_unseen(request)
    refuse_unseen(request, seen=("video",))
