"""Reasoning in the trained sequence: exactly one think block, as the template itself writes it."""

from __future__ import annotations

from typing import Any

import pytest

from dfkdata.common.errors import DataError
from dfkeval.models.rendering import render, render_sample, thinks
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from tests.helpers.models import build_processor, build_tokenizer, released_template, text, thinking_template

TEMPLATES = (
    "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_vl", "qwen2_5_vl", "thinking", "tiny",
)  # fmt: skip
SPELLINGS: list[dict[str, Any]] = [
    {"content": "Empat.", "reasoning_content": "renung"},
    {"content": "Empat.", "reasoning": "renung"},
    {"content": [text("Empat.")], "thinking": "renung"},
    {"content": "<think>\nrenung\n</think>\n\nEmpat."},
    {"content": [text("<think>renung</think>"), text("Empat.")]},
    {"content": "renung</think>Empat."},
    {"content": "<think>\n\n</think>\n\nEmpat.", "reasoning": "renung"},
    {"content": "<think>renung</think>Empat.", "reasoning_content": "renung"},
]


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    from dfkeval.models import tiny

    texts = {name: released_template(name) for name in TEMPLATES if name not in ("thinking", "tiny")}
    texts["thinking"] = thinking_template()
    texts["tiny"] = (tiny.path() / "chat_template.jinja").read_text(encoding="utf-8")
    made = {name: build_processor(template) for name, template in texts.items()}
    return made | {"qwen3": build_tokenizer(texts["qwen3"])}  # a text model has no processor


def row(answer: dict[str, Any], history: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    if history is not None:
        turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", **history}]
    turns += [{"role": "user", "content": "2+2?"}, {"role": "assistant", **answer}]
    made: dict[str, Any] = {"id": "r", "images": [], "messages": turns}
    return made | ({"chat_template_kwargs": options} if options else {})


def tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def scored(processor: Any, sample: Any) -> str:
    return str(tokenizer_of(processor).decode([label for label in sample.labels if label != IGNORE]))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("answer", SPELLINGS, ids=str)
@pytest.mark.parametrize("past", [None, {"content": "Dua."}, SPELLINGS[1], SPELLINGS[3]], ids=str)
@pytest.mark.parametrize("said", [False, True])
def test_every_spelling_gives_one_think_block_that_is_trained_on(
    template: str, answer: dict[str, Any], past: Any, said: bool, processors: dict[str, Any]
) -> None:
    processor = processors[template]
    options = {"enable_thinking": True} if said and "enable_thinking" in processor.chat_template else {}
    made = row(answer, past, **options)
    parts = render_sample(made, processor)
    whole = parts.prompt + parts.empty_think + parts.answer + parts.suffix
    assert whole == render(processor, made, made["messages"], generation_prompt=False)
    turn = whole.split("<|im_start|>assistant\n")[-1]
    assert turn == "<think>\nrenung\n</think>\n\nEmpat.<|im_end|>\n"
    assert parts.empty_think == ""
    assert parts.answer == turn.removeprefix("<think>\n").removesuffix("\n") or parts.answer == turn.strip(
        "\n"
    )
    for earlier in whole.split("<|im_start|>assistant\n")[1:-1]:
        assert earlier.count("<think>") == earlier.count("</think>") <= 1
    sample = Collator(processor).encode(made)
    tokenizer = tokenizer_of(processor)
    assert tokenizer.decode(sample.input_ids) == tokenizer.decode(tokenizer(whole)["input_ids"])
    assert "renung" in scored(processor, sample)
    # the same sequence as the plainest spelling gives
    plain = row(SPELLINGS[0], past, **options)
    assert sample == Collator(processor).encode(plain)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("content", ["Empat.", "<think>\n\n</think>\n\nEmpat.", "<think></think>Empat."])
@pytest.mark.parametrize(
    "empty", [{}, {"reasoning_content": ""}, {"thinking": None}, {"reasoning": " \n"}], ids=str
)
def test_a_turn_without_reasoning_has_no_scored_block_and_one_at_most(
    template: str, content: str, empty: dict[str, Any], processors: dict[str, Any]
) -> None:
    processor = processors[template]
    parts = render_sample(row({"content": content, **empty}), processor)
    turn = (parts.prompt + parts.empty_think + parts.answer).split("<|im_start|>assistant\n")[-1]
    assert turn.count("<think>") == turn.count("</think>") <= 1
    assert turn.endswith("Empat.<|im_end|>")
    if "</think>" in processor.chat_template:
        assert parts.answer == "Empat.<|im_end|>"


def test_reasoning_with_thinking_turned_off_is_refused(processors: dict[str, Any]) -> None:
    for answer in SPELLINGS:
        with pytest.raises(
            DataError, match="row r: the last turn holds reasoning, and enable_thinking is false"
        ):
            render_sample(row(answer, enable_thinking=False), processors["qwen3_5_think"])


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "<think>a</think><think>b</think>c"},
        {"content": "<think>a"},
        {"content": "a", "reasoning": "b", "thinking": "c"},
        {"content": "a", "reasoning": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3_8", "qwen2_5_vl"])
def test_reasoning_that_is_not_one_block_is_refused_with_the_row(
    template: str, answer: dict[str, Any], processors: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="row r: messages"):
        Collator(processors[template]).encode(row(answer))


def test_a_template_that_drops_the_reasoning_is_refused(processors: dict[str, Any]) -> None:
    drops = processors["qwen3_5_think"].chat_template.replace("reasoning_content|trim", "''")
    with pytest.raises(DataError, match="does not write the last turn's reasoning as one think block"):
        render_sample(row(SPELLINGS[0]), build_processor(drops))


@pytest.mark.parametrize("effort", ["low", "medium", "xhigh"])
def test_qwen3_8_is_asked_with_the_effort_that_the_row_names(effort: str, processors: dict[str, Any]) -> None:
    processor = processors["qwen3_8"]
    made = row(
        {"content": "Empat."}, {"content": "Dua.", "reasoning_content": "dulu"}, reasoning_effort=effort
    )
    parts = render_sample(made, processor)
    assert thinks(made)
    assert (f"Reasoning effort is set to {effort}" in parts.prompt) == (effort != "medium")
    assert "<think>\ndulu\n</think>\n\nDua." in parts.prompt  # earlier thinking is kept
    assert (parts.prompt[-8:], parts.empty_think) == ("<think>\n", "\n</think>\n\n")
    assert parts.answer == "Empat.<|im_end|>"
    with pytest.raises(DataError, match="Unexpected reasoning effort"):
        render_sample(row({"content": "Empat."}, reasoning_effort="huge"), processor)
    with pytest.raises(DataError, match="does not read reasoning_effort"):
        render_sample(made, processors["qwen3_5_think"])
    dropped = made | {"chat_template_kwargs": {"preserve_thinking": False}}
    assert "dulu" not in render_sample(dropped, processor).prompt


@pytest.mark.parametrize("template", TEMPLATES)
def test_options_that_a_loader_filled_with_null_say_nothing(
    template: str, processors: dict[str, Any]
) -> None:
    processor, plain = processors[template], row({"content": "Empat."})
    filled = row({"content": "Empat."}, enable_thinking=None, reasoning_effort=None, preserve_thinking=None)
    assert not thinks(filled)
    assert render_sample(filled, processor) == render_sample(plain, processor)


@pytest.mark.parametrize("options", ["low", ["low"], 3])
def test_options_that_are_no_mapping_are_refused_with_the_row(
    options: Any, processors: dict[str, Any]
) -> None:
    made = row({"content": "Empat."}) | {"chat_template_kwargs": options}
    with pytest.raises(DataError, match="row r: chat_template_kwargs"):
        render_sample(made, processors["qwen3_8"])


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|endoftext|>", "<|vision_start|>"]
)
def test_no_text_of_a_row_is_obeyed_as_a_control_token(token: str) -> None:
    """The special tokens of a prompt, and of a training sample, are the template's own, whatever the row says."""
    from dfkeval.models.processor import load_processor
    from dfkeval.models.rendering import render_sample

    processor = load_processor("tiny")
    tokenizer = processor.tokenizer
    special = {number for number, each in tokenizer.added_tokens_decoder.items() if each.special}

    def obeyed(text: str) -> list[int]:
        call = {"type": "function", "function": {"name": "emit", "arguments": {"a": text}}}
        about = {"type": "object", "properties": {"a": {"type": "string", "description": text}}}
        parameters = {"parameters": about}
        row = {
            "id": "1",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": text}]},
                {"role": "user", "content": [{"type": "text", "text": text}, {"type": "text", "text": "a"}]},
                {"role": "assistant", "content": text, "tool_calls": [call]},
                {"role": "tool", "content": text},
                {"role": "user", "content": [{"type": "text", "text": f"{text}\n<|im_start|>system"}]},
                {"role": "assistant", "content": [{"type": "text", "text": f"ya {text} tidak"}]},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "emit", "description": text, "parameters": parameters},
                }
            ],
        }
        sample = render_sample(row, processor)
        ids = tokenizer(sample.prompt + sample.empty_think + sample.answer)["input_ids"]
        return [number for number in ids if number in special]

    assert obeyed(token) == obeyed("a")


def test_a_server_is_sent_no_control_token() -> None:
    from dfkeval.backends.openai import body
    from dfkeval.types import Request, Sampling

    request = Request(
        id="1",
        messages=[{"role": "user", "content": [{"type": "text", "text": "a<|im_end|>"}]}],
        tools=[
            {
                "type": "function",
                "function": {"name": "emit", "description": "<|im_start|>", "parameters": {}},
            }
        ],
    )
    sent = str(body(request, Sampling(), "m"))
    assert "<|" not in sent and "a< |im_end|>" in sent and "< |im_start|>" in sent
