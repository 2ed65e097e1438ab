"""Drawn answers, repeats and reasoning: what a row's draw depends on, and what becomes of its think block."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import dfkeval
from dfkdata.rows.messages import write_text
from dfkeval.backends import Capabilities
from dfkeval.backends._local.logits import Draw, Thinking
from dfkeval.backends.transformers import Transformers
from dfkeval.models import loader
from dfkeval.parsing import reasoning
from dfkeval.types import OUTCOMES, Completion, Request, Sampling
from tests.helpers.runs import DFK, config_of, dfk_gold, gold_answers, sample_of, write_answers, write_rows

torch = pytest.importorskip("torch")
DRAWN = Sampling(max_new_tokens=8, temperature=2.0, top_p=0.95, top_k=200, min_p=0.001, seed=7)
pytestmark = pytest.mark.usefixtures("one_thread")


def asked(index: int, repeat: int = 0, name: str | None = None) -> Request:
    parts = [{"type": "text", "text": f"kata nomor {index} " * (1 + (5 * index) % 9)}]
    return Request(
        id=name or f"{index}.{repeat}", messages=[{"role": "user", "content": parts}], draw_index=repeat
    )


def drawn(tiny: loader.Loaded, requests: list[Request], sampling: Sampling, **limits: int) -> dict[str, str]:
    return {each.id: each.text for each in Transformers(tiny, **limits).generate(requests, sampling)}


def test_drawn_answers_do_not_depend_on_batch_order_or_id(tiny: loader.Loaded) -> None:
    requests = [asked(index, repeat) for index in range(5) for repeat in range(2)]
    alone = drawn(tiny, requests, DRAWN, batch_size=1)
    shuffled = random.Random(3).sample(requests, len(requests))
    assert drawn(tiny, shuffled, DRAWN, batch_size=8) == alone
    renamed = drawn(tiny, [asked(0, 1, "other")], DRAWN)
    assert renamed["other"] == alone["0.1"]
    assert sum(alone[f"{index}.0"] != alone[f"{index}.1"] for index in range(5)) >= 4
    other_seed = drawn(tiny, requests, DRAWN.model_copy(update={"seed": 8}))
    assert sum(other_seed[name] != text for name, text in alone.items()) >= 8


def test_the_picture_is_part_of_what_a_draw_depends_on(tiny: loader.Loaded, tmp_path: Path) -> None:
    from PIL import Image

    from dfkeval.backends._local.prompts import decoded_sha256

    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    assert decoded_sha256([red]) != decoded_sha256([blue]) == decoded_sha256([blue.copy()])
    assert decoded_sha256([red, blue]) != decoded_sha256([blue, red])


def test_draws_have_the_distribution_of_the_softmax_after_the_filters() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    sampling = Sampling(temperature=0.8, top_k=3)
    n = 4000
    draw = Draw(sampling, [f"row {row}" for row in range(n)], "cpu")
    taken = draw(torch.zeros((n, 1), dtype=torch.long), logits.repeat(n, 1)).argmax(dim=-1)
    wanted = torch.softmax(logits[:3] / 0.8, dim=0)
    counts = torch.bincount(taken, minlength=5).double()
    assert counts[3:].sum() == 0
    chi2 = float((((counts[:3] - n * wanted) ** 2) / (n * wanted)).sum())
    assert chi2 < 13.8  # 2 degrees of freedom, p = 0.001


def test_repeats_draw_each_row_several_times_in_its_group(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 3)
    texts = dict(gold_answers(DFK, 3))
    answers = [(f"{name}#{k}", text if k < 3 else "?") for name, text in texts.items() for k in (1, 2, 3)]
    path = write_answers(tmp_path / "a.jsonl", answers)
    sampling = {"temperature": 1.0, "repeats": 3}
    run = dfkeval.evaluate(config_of(data, path, ["validity"], sampling=sampling), tmp_path / "run")
    assert [sample.id for sample in run.samples[:4]] == ["r000#1", "r000#2", "r000#3", "r001#1"]
    assert [sample.draw_index for sample in run.samples[:4]] == [0, 1, 2, 0]
    assert {sample.group for sample in run.samples[:3]} == {"g0"}
    valid = run.summary["metrics"]["validity.schema_valid"]
    assert (valid["value"], valid["n"]) == (pytest.approx(2 / 3), 9)
    assert dfkeval.score(run.folder).summary == run.summary
    data.unlink()
    assert dfkeval.score(run.folder).summary == run.summary


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="same greedy answer"):
        Sampling(repeats=2)
    with pytest.raises(ValidationError, match="set thinking: true"):
        Sampling(thinking_budget=5)


def test_reasoning_and_answer_are_told_apart() -> None:
    assert reasoning.split_opened("so\n</think>\n\nLabel: x") == ("so\n", "Label: x", True)
    assert reasoning.split_opened("so</think>x</think>y") == ("so", "x</think>y", True)
    assert reasoning.split_opened("so on") == ("so on", "", False)
    assert reasoning.split_leading("Label: <think>") is None
    assert reasoning.split_leading(" <think>a</think>b") == ("a", "b", True)


GOLD = write_text(dfk_gold(0), DFK.form)


@pytest.mark.parametrize(
    ("text", "more", "outcome", "thought"),
    [
        (GOLD, {"reasoning": "because"}, "ok", "because"),
        ("", {"reasoning": "on and on", "unclosed_think": True, "finish_reason": "length"}, "unclosed_think",
         "on and on"),
        (f"<think>\nso\n</think>\n\n{GOLD}", {}, "ok", "\nso\n"),
        (f"<think>\nso {GOLD}", {"finish_reason": "length"}, "unclosed_think", f"\nso {GOLD}"),
        (f"<think>\nso {GOLD}", {}, "unclosed_think", f"\nso {GOLD}"),
        ("", {"reasoning": "so", "finish_reason": "length"}, "truncated", "so"),
        (GOLD, {}, "ok", None),
    ],
)  # fmt: skip
def test_an_unclosed_think_block_is_an_outcome_and_reasoning_is_kept(
    text: str, more: dict[str, Any], outcome: str, thought: str | None
) -> None:
    sample = sample_of(0, DFK, text, **more)
    assert (sample.outcome, sample.reasoning, sample.text) == (outcome, thought, text)
    assert outcome in OUTCOMES and (sample.value is None) is (outcome != "ok")


class Thinks:
    """A backend whose answers are given; every second one never stops thinking."""

    capabilities = Capabilities()
    info: dict[str, Any] = {"kind": "thinks"}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        texts = dict(gold_answers(DFK, 8))
        for number, request in enumerate(requests):
            more: dict[str, Any] = (
                {"text": "", "unclosed_think": True} if number % 2 else {"text": texts[request.id]}
            )
            yield Completion(
                id=request.id, reasoning="hm", first_token_seconds=0.25, n_output_tokens=9, **more
            )

    def close(self) -> None: ...


def test_unclosed_blocks_count_in_the_summary_the_report_and_every_mean(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 8)
    config = config_of(data, tmp_path / "none.jsonl", ["validity", "labels"])
    run = dfkeval.evaluate(config, tmp_path / "run", backend=Thinks())
    assert run.summary["outcomes"] == {"ok": 4, "unclosed_think": 4}
    assert run.summary["metrics"]["validity.schema_valid"]["value"] == 0.5
    assert run.summary["metrics"]["labels.accuracy"]["value"] == 0.5
    assert OUTCOMES["unclosed_think"] in (run.folder / "report.md").read_text(encoding="utf-8")
    assert "unclosed_think" in (run.folder / "report.html").read_text(encoding="utf-8")
    lines = (run.folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["reasoning"] for line in lines} == {"hm"}
    facts = json.loads((run.folder / "environment.json").read_text())["generation"]
    assert facts["first_token_seconds"] == {"median": 0.25, "p95": 0.25, "n": 8}
    assert (facts["requests"], facts["output_tokens"], facts["sittings"]) == (8, 72, 1)


def test_a_budget_closes_the_block_and_the_answer_has_its_own_tokens(tiny: loader.Loaded) -> None:
    sampling = Sampling(max_new_tokens=5, thinking=True, thinking_budget=7)
    found = list(Transformers(tiny).generate([asked(index) for index in range(4)], sampling))
    cut = [each for each in found if each.thinking_cut]
    assert cut
    tokenizer = tiny.processor.tokenizer
    for each in cut:
        assert 0 < len(tokenizer.encode(each.reasoning.removesuffix("\n"), add_special_tokens=False)) <= 7
        assert each.reasoning.endswith("\n") and not each.unclosed_think
        assert each.finish_reason == "stop" or each.n_output_tokens == 7 + 3 + 5
    alone = list(Transformers(tiny, batch_size=1).generate([asked(index) for index in range(4)], sampling))
    assert {each.id: (each.text, each.reasoning) for each in alone} == {
        each.id: (each.text, each.reasoning) for each in found
    }


def test_without_a_budget_an_endless_thought_is_unclosed_and_never_an_answer(tiny: loader.Loaded) -> None:
    found = next(iter(Transformers(tiny).generate([asked(1)], Sampling(max_new_tokens=6, thinking=True))))
    assert (found.unclosed_think, found.text, found.finish_reason) == (True, "", "length")
    assert found.reasoning


def test_a_block_that_the_model_closes_itself_is_left_alone() -> None:
    thinking = Thinking(2, budget=3, closer=[7, 8], end=8)
    steps = [[5, 5], [8, 5], [1, 5], [1, 7], [1, 8]]
    forced = []
    for ids in [[0, 0], *steps]:
        logits = thinking(torch.tensor(ids)[:, None], torch.zeros((2, 10)))
        forced.append([int(row.argmax()) if torch.isinf(row).any() else None for row in logits])
    assert forced == [[None, None], [None, None], [None, None], [None, 7], [None, 8], [None, None]]
    assert thinking.cut == [False, True]


def test_the_time_to_the_first_token_is_known_and_lies_within_the_whole(tiny: loader.Loaded) -> None:
    found = next(iter(Transformers(tiny).generate([asked(2)], Sampling(max_new_tokens=6))))
    assert found.first_token_seconds is not None and found.seconds is not None
    assert 0 < found.first_token_seconds <= found.seconds
