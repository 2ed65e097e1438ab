"""Continuous batching answers as `model.generate` does, whatever a row's company."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkeval.backends._continuous import prompts as prompts_module
from dfkeval.backends._continuous.prompts import SHARED, questions
from dfkeval.backends._local.prompts import RenderedPrompt
from dfkeval.backends.transformers import Config, Transformers
from dfkeval.evaluation import constraints
from dfkeval.models import loader
from dfkeval.types import Completion, Request, Sampling

torch = pytest.importorskip("torch")

TOOLS = [
    {"type": "function", "function": {"name": "emit", "description": "Report what is seen.",
     "parameters": {"type": "object", "properties": {"places": {"type": "array"}}}}}
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        Image.new("RGB", (40 + 24 * index, 60), (70 * index, 200 - 50 * index, 90)).save(
            folder / f"{index}.png"
        )
    return [str(folder / f"{index}.png") for index in range(3)]


def asked(index: int, pictures: list[str], tools: bool = False, draws: int = 1) -> list[Request]:
    """One question of its own length, every third with a picture, the fifth with two; drawn several times."""
    shown = pictures[: 1 + (index == 5)] if index % 3 == 0 or index == 5 else []
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in shown]
    parts.append({"type": "text", "text": f"kata nomor {index} " * (1 + (7 * index) % 11)})
    system = [{"type": "text", "text": "Jawab dengan singkat dan jelas. " * 3}]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": parts}]
    return [
        Request(id=f"r{index}.{draw}", messages=messages, images=tuple(shown), draw_index=draw,
                tools=TOOLS if tools else None)
        for draw in range(draws)
    ]  # fmt: skip


def facts(found: Iterator[Completion]) -> dict[str, tuple[Any, ...]]:
    return {
        each.id: (each.text, each.finish_reason, each.n_prompt_tokens, each.n_output_tokens, each.reasoning,
                  each.unclosed_think, each.thinking_cut, each.error)
        for each in found
    }  # fmt: skip


def answered(tiny: loader.Loaded, requests: list[Request], sampling: Sampling, **how: Any) -> dict[str, Any]:
    found = facts(Transformers(tiny, **how).generate(requests, sampling))
    assert sorted(found) == sorted(each.id for each in requests)
    return found


def without_counts(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Leave out the numbers of tokens: `generate` sometimes sees a stop string a token late, and its text is
    cut afterwards."""
    return {name: (*each[:3], *each[4:]) for name, each in found.items()}


WAYS = {
    "greedy": {},
    "stops": {"stop": (" kata", "\n", "sa")},
    "draws": {"temperature": 1.5, "top_p": 0.9, "top_k": 40, "seed": 3},
    "min-p": {"temperature": 0.7, "min_p": 0.05, "seed": 4},
    "penalty": {"repetition_penalty": 1.4},
    "thinking": {"thinking": True, "thinking_budget": 5},
    "thinking, drawn": {"thinking": True, "temperature": 1.2, "seed": 1},
}


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_those_of_generate_at_any_batch_size_and_order(
    tiny: loader.Loaded, pictures: list[str], way: str
) -> None:
    sampling = Sampling(max_new_tokens=10, **WAYS[way])
    draws = 2 if sampling.temperature else 1
    requests = [each for at in range(6) for each in asked(at, pictures, tools=way == "greedy", draws=draws)]
    wanted = answered(tiny, requests, sampling, batching="static", batch_size=5)
    assert len(set(wanted.values())) > 3
    shuffled = random.Random(2).sample(requests, len(requests))
    ways = [(3, shuffled, 150), (64, requests, 10_000), *([(1, requests, 10_000)] if way == "greedy" else [])]
    for size, order, tokens in ways:
        got = answered(
            tiny, order, sampling, batching="continuous", batch_size=size, batch_tokens=tokens, workers=2
        )
        assert without_counts(got) == without_counts(wanted)
        assert way == "stops" or got == wanted
        assert all(each[3] <= wanted[name][3] for name, each in got.items())


def test_a_stop_string_of_several_tokens_ends_an_answer_where_generate_ends_it(
    tiny: loader.Loaded, pictures: list[str]
) -> None:
    requests = [each for at in range(6) for each in asked(at, pictures)]
    whole = answered(tiny, requests, Sampling(max_new_tokens=24), batching="static")
    stops = tuple({text[3:9] for text, *_ in whole.values() if len(text) > 9})
    sampling = Sampling(max_new_tokens=24, stop=stops)
    wanted = answered(tiny, requests, sampling, batching="static")
    assert any(each[0] != whole[name][0] for name, each in wanted.items())
    got = answered(tiny, requests, sampling, batching="continuous", batch_size=3)
    assert without_counts(got) == without_counts(wanted)


@pytest.mark.parametrize("thinking", [False, True])
def test_grammars_hold_their_own_rows_and_no_other(
    tiny: loader.Loaded, pictures: list[str], thinking: bool
) -> None:
    pytest.importorskip("xgrammar")
    import msgspec

    kinds = [schemas.load("keywords"), schemas.load("dfk_label")]
    bound = [constraints.constraint(each, "constrained") for each in kinds]
    requests = [
        msgspec.structs.replace(each, constraint=[*bound, None][at % 3])
        for at in range(4) for each in asked(at, pictures)
    ]  # fmt: skip
    more = {"thinking": True, "thinking_budget": 4} if thinking else {}
    sampling = Sampling(max_new_tokens=20, temperature=1.0, seed=2, **more)
    wanted = answered(tiny, requests, sampling, batching="static", batch_size=2)
    assert answered(tiny, requests, sampling, batching="continuous", batch_size=4) == wanted


def test_a_lost_picture_fails_its_own_request_and_all_of_its_draws(
    tiny: loader.Loaded, pictures: list[str]
) -> None:
    lost = asked(3, ["gone.png"], draws=2)
    sampling = Sampling(max_new_tokens=4, temperature=1.0)
    got = answered(tiny, [*asked(1, pictures), *lost], sampling, batching="continuous")
    assert got["r1.0"][1] != "error"
    assert all("gone.png" in got[each.id][-1] for each in lost)


def no_memory_for(tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let every prefill of more than so many prompts run out of memory; return the sizes that are tried."""
    from dfkeval.backends._continuous.device import Stepper

    begin, sizes = Stepper.begin, []

    def short(self: Any, readings: Any, bounds: Any) -> Any:
        sizes.append(len(readings))
        if len(readings) > rows:
            raise torch.OutOfMemoryError("too large")
        return begin(self, readings, bounds)

    monkeypatch.setattr(Stepper, "begin", short)
    return sizes


def test_a_prefill_that_does_not_fit_into_memory_is_halved_and_answers_stay_the_same(
    tiny: loader.Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [each for at in range(9) for each in asked(at, pictures)]
    sampling = Sampling(max_new_tokens=6)
    wanted = answered(tiny, requests, sampling, batching="continuous")
    sizes = no_memory_for(tiny, monkeypatch, 2)
    assert answered(tiny, requests, sampling, batching="continuous") == wanted
    assert sizes[:3] == [9, 4, 2] and sizes.count(9) == 1


def test_a_prompt_that_does_not_fit_into_memory_alone_is_a_failed_request(
    tiny: loader.Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory_for(tiny, monkeypatch, 0)
    requests = [each for at in range(3) for each in asked(at, pictures)]
    got = answered(tiny, requests, Sampling(max_new_tokens=6), batching="continuous")
    assert all("out of memory for one prompt of" in each[-1] for each in got.values())


def test_an_engine_answers_again_with_longer_prompts_and_other_settings(
    tiny: loader.Loaded, pictures: list[str]
) -> None:
    backend = Transformers(tiny, batching="continuous", batch_size=4)
    short, long = asked(1, pictures), asked(4, pictures)
    long[0].messages[1]["content"][-1]["text"] = "panjang sekali " * 120
    for requests, sampling in (
        (short, Sampling(max_new_tokens=5)), (long, Sampling(max_new_tokens=5)),
        (short, Sampling(max_new_tokens=5, temperature=1.0)), (short + long, Sampling(max_new_tokens=5)),
    ):  # fmt: skip
        assert facts(backend.generate(requests, sampling)) == answered(
            tiny, requests, sampling, batching="static"
        )
    assert list(backend.generate([], Sampling())) == []


def rendered(ids: list[int], name: str = "") -> RenderedPrompt:
    return RenderedPrompt(Request(id=name or str(ids), messages=[]), str(ids), len(ids), tuple(ids))


def test_shared_beginnings_end_before_a_picture_and_before_the_last_token() -> None:
    system = list(range(100, 100 + 2 * SHARED))
    picture = 7
    rows = [
        [*system, 1],
        [*system, 2, picture, 3],
        [*system, 2, 4],
        system,
        [5, 6],
        [*system[:-4], picture, 9],
    ]
    asked_, shared = questions([rendered(row) for row in rows], picture)
    assert [each.prompts[0].ids for each in asked_] == [tuple(row) for row in rows]
    for question in asked_:
        if question.prefix is not None:
            prefix, ids = shared[question.prefix], question.prompts[0].ids
            assert ids[: len(prefix)] == prefix and len(prefix) < len(ids) and picture not in prefix
    assert [each.prefix for each in asked_][:4] == [0, 0, 0, 0] and asked_[4].prefix is None


def test_no_more_beginnings_are_kept_than_there_are_places_for() -> None:
    rows = [[start, *range(SHARED), at] for start in range(20) for at in range(50, 53)]
    asked_, shared = questions([rendered(row) for row in rows], 999)
    assert len(shared) == prompts_module.PREFIXES and len(asked_) == 60
    assert sum(each.prefix is not None for each in asked_) == 3 * prompts_module.PREFIXES


def test_a_question_asked_twice_is_one_prefill() -> None:
    asked_, _ = questions([rendered([1, 2], "a"), rendered([1, 3], "b"), rendered([1, 2], "c")], 9)
    assert [[each.request.id for each in question.prompts] for question in asked_] == [["a", "c"], ["b"]]


def adapted(tiny: loader.Loaded, **options: Any) -> Any:
    """Return a fresh network with a strong random adapter."""
    import peft

    model = loader.load("tiny", dtype="float32", device="cpu").model
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options)
    torch.manual_seed(0)
    net = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return net


def test_an_adapter_is_applied_picture_tower_included(tiny: loader.Loaded, pictures: list[str]) -> None:
    loaded = loader.Loaded(adapted(tiny), tiny.processor, None, "tuned", {})
    requests = [each for at in range(6) for each in asked(at, pictures)]
    sampling = Sampling(max_new_tokens=8)
    wanted = answered(loaded, requests, sampling, batching="static")
    assert wanted != answered(tiny, requests, sampling, batching="static")
    assert answered(loaded, requests, sampling, batching="continuous") == wanted


def test_what_is_not_taken_falls_back_and_says_so(tiny: loader.Loaded, pictures: list[str]) -> None:
    loaded = loader.Loaded(adapted(tiny, use_dora=True), tiny.processor, None, "tuned", {})
    backend = Transformers(loaded)
    assert backend.info["batching"] == "static" and "DoRA" in backend.info["static_because"]
    assert len(list(backend.generate(asked(1, pictures), Sampling(max_new_tokens=2)))) == 1
    with pytest.raises(ConfigError, match="DoRA and LoRA with bias are not merged; choose auto or static"):
        Transformers(loaded, batching="continuous")
    assert Transformers(tiny).info["batching"] == "continuous"
    assert Config(model="tiny").batching == "auto"


def test_kernels_compute_what_their_reference_computes() -> None:
    pytest.importorskip("triton")
    script = Path(__file__).with_name("continuous_kernels.py")
    run = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert all(error < 1e-4 for error in json.loads(run.stdout).values()), run.stdout
