"""Every reason for which an answer can end, whole and streamed, through each backend, with and without the
cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai, vllm
from dfkeval.backends._finish_reasons import SPELLINGS, finish_reason
from dfkeval.backends._local.vllm_engine import ATTEMPTS
from dfkeval.evaluation.response_cache import CachedBackend
from dfkeval.runs.config import EvalConfig
from dfkeval.types import NOT_ANSWERED, OUTCOMES, Completion, Request, Sampling
from tests.helpers.places import FAKES
from tests.helpers.runs import CAPTION, DFK, answer_text, caption_gold, dfk_gold, write_rows
from tests.helpers.servers import ChatServer, chat, chat_server

ENDS = [(said, ours) for ours, spellings in SPELLINGS.items() for said in spellings]
ENDS += [(said.upper(), ours) for said, ours in ENDS]
TROUBLE = ["abort", "error", "", "unknown", "insufficient_system_resource", "cancelled", None, 5, {"a": 1}]


def asked(count: int = 1) -> list[Request]:
    return [
        Request(
            id=str(at),
            messages=[{"role": "user", "content": [{"type": "text", "text": f"q{at}"}]}],
            tools=CAPTION.tools,
        )
        for at in range(count)
    ]


def backend(url: str, **more: Any) -> openai.OpenAI:
    fields = {"base_urls": (url,), "model": "m", "timeout": 5.0, "attempts": 3, "revision": "r"} | more
    config = openai.Config.model_validate(fields)
    return openai.OpenAI(config, httpx.Client(timeout=config.timeout), sleep=lambda seconds: None)


PATHS = [
    {"stream": stream, "tool_parsing": parsing} for stream in (False, True) for parsing in ("off", "compare")
]


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("cached", [False, True])
def test_the_grid_of_finish_reasons(path: dict[str, Any], cached: bool, tmp_path: Path) -> None:
    for place, (said, ours) in enumerate([*ENDS[::3], *((said, None) for said in TROUBLE)]):
        with chat_server(lambda number, said=said: chat("half an ans", said)) as server:  # type: ignore[misc]
            found = []
            for _ in range(2):
                loaded: Any = backend(server.url, **path)
                if cached:
                    loaded = CachedBackend(loaded, tmp_path / str(place))
                found += list(loaded.generate(asked(), Sampling()))
                loaded.close()
        once, kept = 1 if ours else 3, cached and ours == "stop"
        assert len(server.bodies) == once * (1 if kept else 2), (said, ours)
        assert {each.finish_reason for each in found} == {ours or "error"}, said
        assert {each.text for each in found} == {"half an ans" if ours else ""}, said
        assert [each.error is None for each in found] == [ours is not None] * 2, said


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", TROUBLE)
def test_trouble_that_passes_costs_no_answer(said: Any, stream: bool) -> None:
    with chat_server(lambda number: chat("x", said if number < 3 else "stop")) as server:
        found = list(backend(server.url, stream=stream).generate(asked(), Sampling()))
    assert [(each.text, each.finish_reason, each.error) for each in found] == [("x", "stop", None)]


def test_no_reason_means_two_things_and_trouble_is_none_of_them() -> None:
    spellings = [said for said, _ in ENDS]
    assert len(set(spellings)) == len(spellings)
    assert all(finish_reason(said) == ours for said, ours in ENDS)
    assert not any(finish_reason(said) for said in TROUBLE)


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_tells_every_ending_apart(stream: bool, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", DFK, 4)
    reasons = ["stop", "length", "content_filter", "abort"]
    good = answer_text(dfk_gold(0), DFK)

    def run(out: str, cache: str) -> tuple[list[str], int]:
        order: dict[str, str] = {}

        def answer(number: int) -> dict[str, Any]:
            text = json.dumps(server.bodies[number - 1]["messages"])
            reason = order.setdefault(text, reasons[len(order)])
            return chat(good if reason == "stop" else good[:20], reason)

        server = ChatServer(answer)
        fields = {"kind": "openai", "base_urls": [server.url], "model": "m", "revision": "r", "attempts": 1,
                  "concurrency": 1, "stream": stream}  # fmt: skip
        config = {"data": data, "backend": fields, "resamples": 200, "cache": tmp_path / cache}
        try:
            made = evaluate(EvalConfig.model_validate(config), tmp_path / out)
        finally:
            server.close()
        assert made.summary["metrics"]["validity.complete"]["n"] == 3
        assert made.summary["metrics"]["validity.complete"]["value"] == pytest.approx(1 / 3)
        return [sample.outcome for sample in made.samples], len(server.bodies)

    outcomes, count = run("one", "cache")
    assert outcomes[1:] == ["truncated", "content_filter", "request_failed"] and count == 4
    reasons = [*reasons[1:], "abort"]
    again, count = run("two", "cache")
    assert count == 3 and again[0] == outcomes[0]
    assert "content_filter" in OUTCOMES and "content_filter" not in NOT_ANSWERED


# --- vllm in this process


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(FAKES / "fake_vllm"))
    monkeypatch.setenv("FAKE_VLLM", "echo")
    import vllm as module

    module.STARTED.clear()
    yield module
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        del sys.modules[name]


def started(**more: Any) -> Any:
    pytest.importorskip("torch")
    return vllm.start(vllm.Config(**({"model": "tiny", "max_model_len": 2000} | more)))


def output(reason: Any) -> Any:
    first = SimpleNamespace(text="half", finish_reason=reason, stop_reason=None, token_ids=[1])
    return SimpleNamespace(outputs=[first], prompt_token_ids=[1, 2], metrics=None)


@pytest.mark.parametrize(
    ("said", "ours"), [*ENDS[:3], ("length", "length"), ("abort", None), ("error", None)]
)
def test_vllm_ends_for_the_same_reasons(
    fake: Any, monkeypatch: pytest.MonkeyPatch, said: str, ours: str | None
) -> None:
    calls: list[int] = []

    def generate(self: Any, prompts: list[Any], params: list[Any], **more: Any) -> list[Any]:
        calls.append(len(prompts))
        return [output(said if "q0" in prompt["prompt"] else "stop") for prompt in prompts]

    monkeypatch.setattr(fake.LLM, "generate", generate)
    found = {each.id: each for each in started().generate(asked(2), Sampling())}
    assert found["1"].finish_reason == "stop" and found["0"].finish_reason == (ours or "error")
    assert calls == ([2] if ours else [2] + [1] * (ATTEMPTS - 1))
    assert (found["0"].error is None) == (ours is not None)


def test_an_engine_that_dies_is_a_backend_error(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError  # type: ignore[import-not-found]

    loaded = started()
    for error in (EngineDeadError(), RuntimeError("CUDA error"), ValueError("bad")):

        def generate(self: Any, *prompts: Any, error: Exception = error, **more: Any) -> list[Any]:
            raise error

        monkeypatch.setattr(fake.LLM, "generate", generate)
        with pytest.raises(BackendError, match=r"the vllm engine failed .* run the same command again"):
            list(loaded.generate(asked(), Sampling()))


def test_engine_arguments_arrive_and_those_that_dfk_sets_are_refused(fake: Any) -> None:
    loaded = started(engine_args={"enforce_eager": True})
    assert fake.STARTED[-1]["eager"] is True
    plain = started()
    assert loaded.identity.for_cache() != plain.identity.for_cache()
    for name in ("model", "seed", "tensor_parallel_size"):
        with pytest.raises(ConfigError, match=rf"engine_args: {name} is set by"):
            vllm.check(vllm.Config(model="tiny", engine_args={name: 1}), Sampling(), None)
    with pytest.raises(ConfigError, match=r"vllm does not take them.*warp_speed"):
        started(engine_args={"warp_speed": 9})


# --- stop strings


def test_an_empty_list_of_stop_strings_means_none(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", CAPTION, 1)
    answer = answer_text(caption_gold(0), CAPTION)
    for number, (sampling, sent) in enumerate([({}, ["</tool_call>"]), ({"stop": []}, None)]):
        with chat_server(lambda number: chat(answer)) as server:
            fields = {"kind": "openai", "base_urls": [server.url], "model": "m"}
            config = {"data": data, "backend": fields, "resamples": 200, "sampling": sampling}
            folder = tmp_path / str(number)
            evaluate(EvalConfig.model_validate(config), folder)
        assert server.bodies[0].get("stop") == sent
        stored = EvalConfig.model_validate(json.loads((folder / "config.json").read_text())["config"])
        assert list(stored.sampling.stop) == (sent or [])


def test_completions_of_files_may_name_the_filter() -> None:
    assert Completion(id="1", text="", finish_reason="content_filter").error is None
