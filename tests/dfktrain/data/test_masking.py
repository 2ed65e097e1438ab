"""The mask against a second, slow and obvious implementation, on the grid template x turns x think x
tools."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dfkdata.common.errors import DataError
from dfkeval.models.rendering import render, render_sample
from dfktrain.data import masking
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE
from tests.helpers.models import (
    TOOL,
    build_processor,
    image_row,
    released_template,
    text,
    text_row,
    thinking_template,
    tool_row,
)

ALWAYS_THINKS = "qwen3_vl_thinking"
TEMPLATES = ("qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_vl", "qwen2_5_vl")


def tiny_template() -> str:
    from dfkeval.models import tiny

    return (tiny.path() / "chat_template.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    made = {name: build_processor(released_template(name)) for name in TEMPLATES}
    made["qwen3_vl_thinking"] = build_processor(thinking_template())
    return made | {"tiny": build_processor(tiny_template())}


def slow_labels(ids: list[int], tokenizer: Any) -> list[int]:
    """Token by token: everything after the last assistant header up to and with its stop token, less an empty
    think block.

    Written for rows whose texts hold no marks; finds the header by its tokens, which the fast one never
    does."""
    words = [tokenizer.decode([token]) for token in ids]
    joined = ["".join(words[:i]) for i in range(len(words) + 1)]
    header = "<|im_start|>assistant\n"
    start = max(i for i in range(len(words) + 1) if joined[i].endswith(header))
    for i in range(start, len(words)):
        block = "".join(words[start:i])
        if "</think>" in block and block.replace("<think>", "").replace("</think>", "").strip() == "":
            start = i  # an empty block, up to the first word of the answer
            while words[start].strip() == "":
                start += 1
            break
    if words[start] == "<think>":  # a trace: the prompt opens its block, the model writes the rest
        start += 2
    stop = next(i for i in range(start, len(words)) if words[i] == "<|im_end|>")
    return [token if start <= i <= stop else IGNORE for i, token in enumerate(ids)]


def conversation(turns: int, think: str, tools: bool, images: list[str]) -> dict[str, Any]:
    """A row with `turns` questions; think: "off", "empty" (thinking on, no trace) or "trace"."""
    row = (
        tool_row("row", images)
        if tools
        else image_row("row", images, "a red circle", "Label: Netral dan benar")
    )
    answer = row["messages"][-1]
    if think == "trace":
        answer = answer | {"reasoning_content": "tidak benar karena"}
    history: list[dict[str, Any]] = []
    for index in range(turns - 1):
        history += [
            {"role": "user", "content": [text(f"berita {index}")]},
            {"role": "assistant", "content": [text(f"benar {index}")]},
        ]
    if tools and turns > 1:
        call = {"type": "function", "function": {"name": "emit", "arguments": {"setting": "y"}}}
        history += [
            {"role": "user", "content": [text("x")]},
            {"role": "assistant", "content": [], "tool_calls": [call]},
            {"role": "tool", "content": [text("red")]},
            {"role": "assistant", "content": [text("blue")]},
        ]
    made = row | {"messages": [*history, *row["messages"][:-1], answer]}
    return made if think == "off" else made | {"chat_template_kwargs": {"enable_thinking": True}}


GRID = list(
    itertools.product(
        (*TEMPLATES, ALWAYS_THINKS, "tiny"), (1, 2, 3), ("off", "empty", "trace"), (False, True), (0, 1, 2)
    )
)


@pytest.mark.parametrize("template", (*TEMPLATES, ALWAYS_THINKS, "tiny"))
def test_the_mask_equals_the_slow_one_on_the_whole_grid(
    template: str, processors: dict[str, Any], pictures: list[str]
) -> None:
    processor = processors[template]
    collator = Collator(processor)
    switch = "enable_thinking" in processor.chat_template
    seen = 0
    for _, turns, think, tools, images in (cell for cell in GRID if cell[0] == template):
        if think != "off" and not switch and template != ALWAYS_THINKS:
            continue  # a template without the switch has no thinking to turn on
        if tools and "tool_calls" not in processor.chat_template:
            continue
        row = conversation(turns, think, tools, pictures[:images])
        if not switch:
            row.pop("chat_template_kwargs", None)
        sample = collator.encode(row)
        expected = slow_labels(sample.input_ids, processor.tokenizer)
        assert sample.labels == expected, (turns, think, tools, images)
        assert len(sample.input_ids) == len(sample.labels)
        short = collator.shorten(sample, len(sample) - 1 - turns % 2)
        assert len(short) < len(sample)
        assert short.labels == slow_labels(short.input_ids, processor.tokenizer), (
            turns,
            think,
            tools,
            images,
        )
        seen += 1
    assert seen >= 9


@pytest.mark.parametrize("template", ("qwen3_5_nothink", "qwen3_6", "tiny", "qwen2_5_vl", ALWAYS_THINKS))
def test_the_prompt_is_token_for_token_what_inference_starts_from(
    template: str, processors: dict[str, Any], pictures: list[str]
) -> None:
    processor = processors[template]
    row = conversation(2, "off", False, pictures[:1])
    sample = Collator(processor).encode(row)
    first = next(i for i, label in enumerate(sample.labels) if label != IGNORE)
    asked = render(processor, row, row["messages"][:-1], generation_prompt=True)
    expanded = asked.replace(
        "<|image_pad|>", "<|image_pad|>" * sample.input_ids.count(processor.image_token_id)
    )
    prompt = processor.tokenizer(expanded)["input_ids"]
    assert sample.input_ids[: len(prompt)] == prompt
    closing = "\n</think>\n\n" if template == ALWAYS_THINKS else ""  # no trace: closed at once, without loss
    assert processor.tokenizer.decode(sample.input_ids[len(prompt) : first]) == closing


@pytest.mark.parametrize("template", (*TEMPLATES, ALWAYS_THINKS, "tiny"))
def test_the_stop_token_carries_loss_and_the_newline_after_it_does_not(
    template: str, processors: dict[str, Any]
) -> None:
    processor = processors[template]
    sample = Collator(processor).encode(text_row("t", "berita", "Label: Fitnah"))
    scored = [token for token, label in zip(sample.input_ids, sample.labels, strict=True) if label != IGNORE]
    assert processor.tokenizer.decode(scored) == "Label: Fitnah<|im_end|>"
    assert sample.labels[-1] == IGNORE


def test_an_empty_think_block_carries_no_loss_and_a_trace_does(processors: dict[str, Any]) -> None:
    processor = processors["qwen3_5_think"]
    row = text_row("t", "berita", "Label: Fitnah", chat_template_kwargs={"enable_thinking": True})
    empty = render_sample(row, processor)
    row["messages"][-1]["reasoning_content"] = "karena salah"
    traced = render_sample(row, processor)
    assert (empty.empty_think, empty.answer) == ("\n</think>\n\n", "Label: Fitnah<|im_end|>")
    assert (traced.empty_think, traced.answer) == ("", "karena salah\n</think>\n\nLabel: Fitnah<|im_end|>")


def test_every_turn_as_a_sample_has_the_prompt_of_its_own_inference(processors: dict[str, Any]) -> None:
    processor = processors["qwen3_5_nothink"]
    row = conversation(3, "off", False, [])
    samples = list(masking.turns(row, "all"))
    assert [sample["id"] for sample in samples] == ["row#turn1", "row#turn3", "row#turn5"]
    assert [render_sample(sample, processor).answer for sample in samples] == [
        "benar 0<|im_end|>", "benar 1<|im_end|>", "Label: Netral dan benar<|im_end|>",
    ]  # fmt: skip
    assert all(render_sample(sample, processor).prompt.endswith("</think>\n\n") for sample in samples)


def test_a_row_that_ends_with_a_question_is_scored_up_to_its_last_answer(processors: dict[str, Any]) -> None:
    row = conversation(2, "off", False, [])
    row["messages"].append({"role": "user", "content": [text("and now")]})
    assert (
        render_sample(next(masking.turns(row)), processors["tiny"]).answer
        == "Label: Netral dan benar<|im_end|>"
    )


def test_a_row_without_an_answer_is_refused(processor: Any) -> None:
    row = text_row("asked-only", "berita", "x")
    del row["messages"][-1]
    with pytest.raises(DataError, match=r"asked-only: has no assistant turn"):
        Collator(processor)([row])


def test_a_row_with_an_empty_answer_is_refused(processor: Any) -> None:
    with pytest.raises(DataError, match=r"hollow: the last answer is empty"):
        Collator(processor)([text_row("hollow", "berita", "")])


def test_a_template_that_rewrites_the_prompt_is_refused(processor: Any) -> None:
    other = build_processor(
        "{% for m in messages %}{{ loop.length }}<|im_start|>{{ m.role }}\n"
        "{{ m.content[0].text }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(DataError, match="renders the prompt differently"):
        Collator(other)([text_row("t", "a", "b")])


def test_a_template_option_that_the_template_does_not_read_is_refused(processor: Any) -> None:
    with pytest.raises(DataError, match=r"does not read enable_thinkin$"):
        Collator(processor)([text_row("t", "a", "b", chat_template_kwargs={"enable_thinkin": True})])


def test_tools_reach_the_prompt_and_the_call_is_the_answer(processor: Any, pictures: list[str]) -> None:
    parts = render_sample(tool_row("c", pictures[:1]), processor)
    assert TOOL["function"]["name"] in parts.prompt
    assert parts.answer.startswith("<tool_call>\n<function=emit>\n<parameter=subjects>\n")
    assert parts.answer.endswith("</tool_call><|im_end|>")


def test_tool_responses_carry_no_loss(processors: dict[str, Any]) -> None:
    processor = processors["qwen3_5_nothink"]
    row = conversation(2, "off", True, [])
    sample = Collator(processor).encode(row)
    scored = processor.tokenizer.decode([label for label in sample.labels if label != IGNORE])
    assert "tool_response" not in scored and "blue" not in scored


def test_a_sample_holds_the_pictures_of_its_own_turns_and_no_later_ones() -> None:
    def asked(text: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}

    answer = {"role": "assistant", "content": [{"type": "text", "text": "A"}]}
    row = {"id": "r", "messages": [asked("1"), answer, asked("2"), answer, asked("3")]}
    row["images"] = ["1.png", "2.png", "3.png"]
    assert [sample["images"] for sample in masking.turns(row, "all")] == [["1.png"], ["1.png", "2.png"]]
    assert [sample["images"] for sample in masking.turns(row)] == [["1.png", "2.png"]]
    row["images"] = ["1.png"]  # a file is missing: which place is whose is not known, the encoder refuses it
    assert [sample["images"] for sample in masking.turns(row)] == [["1.png"]]
