"""Calls rendered by the released chat templates, and by the project's own, are read back exactly, or
reported."""

from __future__ import annotations

import importlib.util
import json
import random
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from dfkeval.parsing.reasoning import split_opened
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from dfkeval.testing.roundtrip import TOOLS, random_calls, verdict
from tests.helpers.places import ROOT

jinja2 = pytest.importorskip("jinja2", reason="chat templates are Jinja templates")
sandbox = pytest.importorskip("jinja2.sandbox")

TRL = {"qwen3_5_nothink": "qwen3.5", "qwen3_5_think": "qwen3.5", "qwen3_6": "qwen3.6", "qwen3_8": "qwen3.8"}
N = 400


def _file(name: str) -> Path:
    if name == "own":
        return ROOT / "dfkeval" / "models" / "tiny" / "weights" / "chat_template.jinja"
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        pytest.skip("the released templates come with TRL, which is not installed")
    return Path(spec.origin).parent / "chat_templates" / f"{name}.jinja"


def _template(name: str):
    """The template as transformers sets it up: trimmed blocks, `tojson` without HTML escapes."""
    path = _file(name)
    if not path.exists():
        pytest.skip(f"{path.name} of {name!r} is not there")
    env = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)

    def fail(message: str) -> None:
        raise jinja2.TemplateError(message)

    env.globals["raise_exception"] = fail
    return env.from_string(path.read_text(encoding="utf-8"))


def _answer(template, calls) -> str:
    """What the template writes behind the generation prompt for an answer that makes `calls`."""
    question = [{"role": "user", "content": "What now?"}]
    made = [
        {"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls
    ]
    answer = {"role": "assistant", "content": "", "tool_calls": made}
    prompt = template.render(messages=question, add_generation_prompt=True, enable_thinking=False)
    whole = template.render(messages=[*question, answer], enable_thinking=False)
    assert whole.startswith(prompt)
    return whole.removeprefix(prompt)


def _measure(name: str, level: int) -> Counter[str]:
    template = _template(name)
    parser = ToolCallParser(TOOLS, dialect=TRL.get(name, "qwen3.5"))
    rng = random.Random(f"{name} {level}")
    counts: Counter[str] = Counter()
    for _ in range(N):
        calls = random_calls(rng, level)
        counts[verdict(calls, parser.parse(_answer(template, calls)))] += 1
    return counts


NAMES = [*TRL, "own"]


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_values_come_back_exactly(name):
    counts = _measure(name, 0)
    assert counts["exact"] + counts["null"] == N
    assert counts["null"] <= N // 50


@pytest.mark.parametrize("name", NAMES)
def test_fragments_of_tags_inside_a_line_are_data(name):
    counts = _measure(name, 1)
    assert counts["wrong"] == 0
    assert counts["exact"] >= 0.98 * (N - counts["null"])


@pytest.mark.parametrize("name", NAMES)
def test_tags_on_lines_of_their_own_are_read_exactly_or_reported(name):
    counts = _measure(name, 2)
    assert counts["wrong"] <= 0.003 * N
    assert counts["exact"] >= 0.7 * N


@pytest.mark.parametrize("name", ["qwen3_5_nothink", "qwen3_6", "qwen3_8"])
def test_where_strict_is_wrong_the_bytes_are_those_of_the_call_it_returns(name):
    template = _template(name)
    dialect = TRL[name]
    parser = ToolCallParser(TOOLS, dialect=dialect)
    rng = random.Random(3)
    for _ in range(4 * N):
        calls = random_calls(rng, 3)
        text = _answer(template, calls)
        result = parser.parse(text)
        if verdict(calls, result) == "wrong":
            assert text.startswith(
                "\n".join(write_tool_call(c.name, c.arguments, dialect) for c in result.calls)
            )


@pytest.mark.parametrize("name", ["qwen3_5_nothink", "qwen3_6", "qwen3_8"])
def test_the_writer_writes_what_the_template_writes(name):
    template = _template(name)
    rng = random.Random(4)
    for _ in range(100):
        calls = random_calls(rng, 3)
        written = "\n".join(write_tool_call(call, arguments, TRL[name]) for call, arguments in calls)
        assert _answer(template, calls).removesuffix("<|im_end|>\n") == written


def test_the_qwen3_8_template_is_the_one_that_ships_with_the_model():
    """SHA-256 of chat_template.jinja as copies of Qwen3.8-27B on the Hub have it."""
    assert sha256(_file("qwen3_8").read_bytes()).hexdigest() == (
        "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041"
    )


@pytest.mark.parametrize("trace", ["", "hitung dulu", "<tool_call> jangan dulu"])
@pytest.mark.parametrize("prose", ["", "Baik."])
@pytest.mark.parametrize("effort", [None, "low", "medium", "xhigh"])
def test_calls_behind_reasoning_are_read_whatever_effort_was_asked_for(trace, prose, effort):
    template = _template("qwen3_8")
    options = {"enable_thinking": True} | ({"reasoning_effort": effort} if effort else {})
    question = [{"role": "user", "content": "What now?"}]
    parser = ToolCallParser(TOOLS, dialect="qwen3.8", prefill="think")
    rng = random.Random(f"{trace} {prose} {effort}")
    for _ in range(40):
        calls = random_calls(rng, 0)
        made = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
        answer = {"role": "assistant", "content": prose, "reasoning_content": trace, "tool_calls": made}
        prompt = template.render(messages=question, add_generation_prompt=True, **options)
        whole = template.render(messages=[*question, answer], **options)
        assert prompt.endswith("<think>\n")
        text = whole.removeprefix(prompt).removesuffix("<|im_end|>\n")
        result = parser.parse(text)
        assert verdict(calls, result) in ("exact", "null"), result
        assert (result.reasoning or "").strip() == trace
        assert (result.content or "").strip() == prose
        thought = split_opened(text)
        assert (thought.reasoning.strip(), thought.closed) == (trace, True)


def test_writing_what_was_read_gives_the_text_back():
    parser = ToolCallParser(TOOLS, dialect="qwen3.5")
    rng = random.Random(5)
    for _ in range(N):
        text = "\n".join(write_tool_call(name, arguments) for name, arguments in random_calls(rng, 2))
        result = parser.parse(text)
        if result.ok:
            assert "\n".join(write_tool_call(call.name, call.arguments) for call in result.calls) == text
