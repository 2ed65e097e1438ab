"""What a server parses of an answer, beside what we parse of it: reasoning, calls, and runs that say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dfkeval
from dfkdata.common.errors import ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Sampling
from tests.helpers.hostile_server import Answer, Server, chat, last_text
from tests.helpers.runs import CAPTION, DFK, write_rows

THINKS = Sampling(thinking=True)


@pytest.mark.parametrize(
    ("message", "sampling", "server", "wanted"),
    [
        ({"content": "\n\nA", "reasoning_content": "so"}, THINKS, "vllm", ("A", "so", False)),
        ({"content": "A", "reasoning": "so"}, THINKS, "other", ("A", "so", False)),
        ({"content": None, "reasoning_content": "so on"}, THINKS, "sglang", ("", "so on", True)),
        ({"content": "so\n</think>\n\nA"}, THINKS, "other", ("A", "so\n", False)),
        ({"content": "so on"}, THINKS, "vllm", ("", "so on", True)),
        ({"content": "A"}, THINKS, "other", ("A", None, False)),
        ({"content": "A"}, Sampling(), "vllm", ("A", None, False)),
    ],
)
def test_reasoning_is_told_apart_however_the_server_sends_it(
    message: dict[str, Any], sampling: Sampling, server: Any, wanted: tuple[str, str | None, bool]
) -> None:
    answer = json.loads(chat(None, message=message))
    found = openai.completion("1", answer, sampling, 0.1, server)
    assert (found.text, found.reasoning, found.unclosed_think) == wanted


GOOD = {"actions": ["run"], "setting": "outdoor"}
RAW = write_tool_call("emit_caption_schema", GOOD)


def parsed(arguments: dict[str, Any], content: str | None = None) -> bytes:
    function = {"name": "emit_caption_schema", "arguments": json.dumps(arguments)}
    return chat(
        content, finish="tool_calls", message={"tool_calls": [{"type": "function", "function": function}]}
    )


def compared(
    serve: Callable[[Answer], Server], tmp_path: Path, answer: Answer, n: int = 2
) -> tuple[Any, Server]:
    server = serve(answer)
    data = write_rows(tmp_path / "test.jsonl", CAPTION, n)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "tool_parsing": "compare"}
    fields = {"data": data, "backend": backend, "metrics": ("validity",), "resamples": 200}
    return evaluate(EvalConfig.model_validate(fields), tmp_path / "run"), server


def test_a_servers_parser_is_compared_with_ours_by_two_greedy_requests_and_labelled_so(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        if body.get("tool_choice") == "none":
            return 200, chat(RAW.removesuffix("</tool_call>"), stop_reason="</tool_call>")
        wrong = "dog" in last_text(body)
        return 200, parsed({"actions": "run", "setting": "outdoor"} if wrong else GOOD)

    run, server = compared(serve, tmp_path, answer)
    found = run.summary["details"]["server_parsing"]
    assert (found["compared"], found["equal"], found["sources"]) == (2, 1, {"two greedy requests": 2})
    assert found["differ"][0]["ours"] == GOOD
    assert found["differ"][0]["server"][0]["arguments"] == {"actions": "run", "setting": "outdoor"}
    assert len(server.bodies) == 4
    assert [sample.text for sample in run.samples] == [RAW, RAW]
    line = "agrees with ours on 1 of 2 answers (2 from two greedy requests)"
    assert line in (run.folder / "report.md").read_text(encoding="utf-8")
    assert line in (run.folder / "report.html").read_text(encoding="utf-8")
    assert dfkeval.score(run.folder).summary == run.summary


def test_one_request_is_enough_where_the_raw_text_comes_back(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    run, server = compared(serve, tmp_path, lambda body, n: (200, parsed(GOOD, RAW)))
    found = run.summary["details"]["server_parsing"]
    assert (found["equal"], found["sources"], len(server.bodies)) == (2, {"same answer": 2}, 2)


def test_a_second_request_with_another_prompt_is_not_compared(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        if body.get("tool_choice") == "none":
            return 200, chat(RAW).replace(b'"prompt_tokens": 7', b'"prompt_tokens": 5')
        return 200, parsed(GOOD)

    run, _ = compared(serve, tmp_path, answer)
    found = run.summary["details"]["server_parsing"]
    assert (found["compared"], found["sources"]) == (0, {"no raw text": 2})


def test_drawn_answers_are_not_compared(tmp_path: Path) -> None:
    config = openai.Config(base_urls=("http://127.0.0.1:9/v1",), model="m", tool_parsing="compare")
    with pytest.raises(ConfigError, match="needs two equal answers"):
        openai.check(config, Sampling(temperature=0.5), None)


def test_a_server_is_cached_under_its_declared_revision(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("Label: fitnah\n\nAnalisis: x")))
    data = write_rows(tmp_path / "test.jsonl", DFK, 3)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m", "revision": "r1"}
    fields = {"data": data, "backend": backend, "resamples": 200, "cache": tmp_path / "cache"}
    config = EvalConfig.model_validate(fields)
    evaluate(config, tmp_path / "one")
    evaluate(config, tmp_path / "two")
    assert len(server.bodies) == 3
    other = EvalConfig.model_validate(fields | {"backend": backend | {"revision": "r2"}})
    evaluate(other, tmp_path / "three")
    assert len(server.bodies) == 6


def test_the_report_of_a_server_says_that_its_adapter_is_unverified(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("Label: fitnah\n\nAnalisis: x")))
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    backend = {"kind": "openai", "base_urls": [server.url], "model": "m"}
    run = evaluate(
        EvalConfig.model_validate({"data": data, "backend": backend, "resamples": 200}), tmp_path / "run"
    )
    for name in ("report.md", "report.html"):
        assert "unverified" in (run.folder / name).read_text(encoding="utf-8")
