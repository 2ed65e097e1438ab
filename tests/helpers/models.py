"""Tiny random models and rows. The qwen3_5 one is a real hybrid (Gated DeltaNet and full attention, vision
tower, tied head) with a byte-level tokenizer and the released chat template, which TRL ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    "Label: Fitnah Netral Analisis: berita ini tidak benar dan menyesatkan pembaca a red circle blue square "
)
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
TOOL = {
    "type": "function",
    "function": {
        "name": "emit",
        "description": "Emit it.",
        "parameters": {
            "type": "object",
            "properties": {"subjects": {"type": "array"}, "setting": {"type": "string"}},
        },
    },
}


def build_tokenizer(template: str) -> Any:
    """Byte-level BPE with a few merges and the Qwen special tokens."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import AddedToken
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX, Qwen3_5Tokenizer

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([WORDS * 8, template], trainer)
    state = json.loads(raw.to_str())["model"]
    tokenizer = Qwen3_5Tokenizer(vocab=state["vocab"], merges=[tuple(merge) for merge in state["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = template
    return tokenizer


def released_template(name: str) -> str:
    """A chat template as released, from the installed TRL."""
    trl = pytest.importorskip("trl")
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


_LAST_QUESTION = (
    "{%- set ask = namespace(last=0) %}{%- for turn in messages %}"
    "{%- if turn.role == 'user' %}{%- set ask.last = loop.index0 %}{%- endif %}{%- endfor %}"
)
_THINK_BLOCK = (
    "{%- if loop.index0 > ask.last and (loop.last or message.reasoning_content) %}"
    "{{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif %}"
)


def thinking_template() -> str:
    """Qwen3-VL's Instruct template made to think as its Thinking release does: the generation prompt opens a
    block, an answer after the last question has one (empty without a trace), history has none, and there is
    no switch."""
    head, assistant = released_template("qwen3_vl").split('message.role == "assistant"')
    turn = "{{- '<|im_start|>' + message.role + '\\n' }}"
    prompt = "{{- '<|im_start|>assistant\\n' }}"
    assert turn in assistant and prompt in assistant
    assistant = assistant.replace(turn, turn + _THINK_BLOCK, 1)
    assistant = assistant.replace(prompt, prompt.replace("assistant\\n", "assistant\\n<think>\\n"))
    return _LAST_QUESTION + head + 'message.role == "assistant"' + assistant


def build_processor(template: str, patch: int = 16) -> Any:
    """Tokenizer and an image processor with a budget of 64x64 pixels."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from dfkeval.models.image_text_processor import ImageTextProcessor

    images = Qwen2VLImageProcessorPil(
        patch_size=patch,
        size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ImageTextProcessor(images, build_tokenizer(template), chat_template=template)


def build_model(processor: Any, seed: int = 0) -> Any:
    """A random qwen3_5 model of about 0.2 M parameters, fp32, gates away from their trivial start."""
    import torch
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    token = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3_5Config(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 64,
            "patch_size": 16,
            "num_position_embeddings": 64,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3_5ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(1.5)  # the usual 0.02 leaves logits so flat that a leak would hardly be seen
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval()


def text(words: str) -> dict[str, str]:
    """A text part."""
    return {"type": "text", "text": words}


def text_row(name: str, asked: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row without images."""
    messages = [{"role": "user", "content": [text(asked)]}, {"role": "assistant", "content": [text(answer)]}]
    return {
        "id": name,
        "messages": messages,
        "images": [],
        "meta": {"group": name, "schema": "dfk_label"},
    } | more


def image_row(name: str, images: list[str], asked: str, answer: str) -> dict[str, Any]:
    """A row with its images before the text."""
    content = [*({"type": "image"} for _ in images), text(asked)]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": [text(answer)]}]
    return {
        "id": name,
        "messages": messages,
        "images": images,
        "meta": {"group": name, "schema": "dfk_label"},
    }


def tool_row(name: str, images: list[str]) -> dict[str, Any]:
    """A caption row: tools in the prompt, a tool call as the answer."""
    call = {
        "type": "function",
        "function": {"name": "emit", "arguments": {"subjects": ["a", "b"], "setting": "x"}},
    }
    row = image_row(name, images, "a red circle", "")
    row["messages"][-1] = {"role": "assistant", "content": [], "tool_calls": [call]}
    return row | {"tools": [TOOL]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a JSONL file of the messages layout."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
