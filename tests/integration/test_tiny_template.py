"""The built-in chat template writes what the released Qwen3.5 and Qwen3.6 templates write, byte for byte.

The released templates are taken from an installed TRL at test time."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from transformers.utils.chat_template_utils import render_jinja_template  # noqa: E402  (after importorskip)

from dfkdata.schemas import load  # noqa: E402
from dfktrain import tiny  # noqa: E402


def _released(name: str) -> str:
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("TRL, which carries the released templates, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "chat_templates" / name
    if not path.is_file():
        pytest.skip(f"this TRL does not carry {name}")
    return path.read_text(encoding="utf-8")


def _own() -> str:
    return (tiny.path() / "chat_template.jinja").read_text(encoding="utf-8")


def _render(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    tools = options.pop("tools", None)
    rendered, _ = render_jinja_template([messages], chat_template=template, tools=tools, **options)
    return str(rendered[0])


def _text(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _call(arguments: Any, name: str = "catat") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


ARGUMENTS = {
    "text": "satu\n\n dua \n",
    "empty": "",
    "true": True,
    "none": None,
    "int": 3,
    "float": 1.5,
    "list": ["a", {"b": None, "c": True}],
    "object": {"k": "</parameter>", "é": "ß"},
}
USER = {"role": "user", "content": [{"type": "image"}, *_text("Apa ini?  \n")]}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "question": [USER],
    "plain strings": [{"role": "system", "content": " Sistem. \n"}, {"role": "user", "content": "  Halo\n"}],
    "answer": [USER, {"role": "assistant", "content": _text("Label: netral\n\nAnalisis: x")}],
    "call": [USER, {"role": "assistant", "content": [], "tool_calls": [_call(ARGUMENTS)]}],
    "call without content": [USER, {"role": "assistant", "tool_calls": [_call({})]}],
    "no arguments": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
    ],
    "two calls after text": [
        {"role": "system", "content": _text("Sistem")},
        USER,
        {
            "role": "assistant",
            "content": "Baik.\n",
            "tool_calls": [_call({"a": 1}), _call({"b": [1]}, "lagi")],
        },
    ],
    "tool answers and a second question": [
        USER,
        {"role": "assistant", "content": "<think>\npikir\n</think>\n\n", "tool_calls": [_call({"a": "x"})]},
        {"role": "tool", "content": "hasil 1"},
        {"role": "tool", "content": _text(" hasil 2 ")},
        {"role": "assistant", "reasoning_content": " lalu ", "content": "Selesai."},
        {
            "role": "user",
            "content": [*_text("Dan ini?"), {"type": "image"}, {"type": "video"}, {"type": "image"}],
        },
        {"role": "assistant", "content": "<think>\n\n</think>\n\nYa."},
    ],
    "call as its own mapping": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
    ],
    "user text that looks like a tool answer": [
        USER,
        {"role": "assistant", "content": "Satu."},
        {"role": "user", "content": "<tool_response>\nx\n</tool_response>"},
        {"role": "assistant", "content": "Dua."},
    ],
}
TOOLS = {
    "no tools": None,
    "caption tool": load("caption").tools,
    "two tools": [*(load("caption").tools or []), _call({})],
}
OPTIONS = [
    {"add_generation_prompt": generate, "enable_thinking": think, "add_vision_id": number}
    for generate, think, number in itertools.product((False, True), (False, True), (False, True))
]


@pytest.mark.parametrize("tools", TOOLS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize(
    ("name", "dialect"), [("qwen3_5_nothink.jinja", "qwen3.5"), ("qwen3_6.jinja", "qwen3.6")]
)
def test_the_built_in_template_writes_what_the_released_one_writes(
    name: str, dialect: str, conversation: str, tools: str
) -> None:
    messages = CONVERSATIONS[conversation]
    for options in OPTIONS:
        theirs = _render(_released(name), messages, tools=TOOLS[tools], **options)
        ours = _render(_own(), messages, tools=TOOLS[tools], dialect=dialect, **options)
        assert ours == theirs


def test_thoughts_of_history_are_kept_when_asked_as_in_the_3_6_template() -> None:
    messages = CONVERSATIONS["tool answers and a second question"]
    theirs = _render(_released("qwen3_6.jinja"), messages, preserve_thinking=True)
    assert _render(_own(), messages, preserve_thinking=True, dialect="qwen3.6") == theirs


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "nur System"}],
        [USER, {"role": "system", "content": "zu spät"}],
        [{"role": "system", "content": [{"type": "image"}]}, USER],
        [{"role": "critic", "content": "x"}, USER],
        [{"role": "user", "content": [{"type": "audio"}]}],
        [{"role": "user", "content": {"text": "x"}}],
        [USER, {"role": "assistant", "tool_calls": [_call('{"a": 1}')]}],
    ],
)
def test_what_the_released_template_refuses_is_refused(messages: list[dict[str, Any]]) -> None:
    for template in (_released("qwen3_5_nothink.jinja"), _own()):
        with pytest.raises(Exception):  # noqa: B017  (jinja's error class is an implementation detail of transformers)
            _render(template, messages)
