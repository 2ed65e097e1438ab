"""Make models with random weights in the shape of Qwen3.5-0.8B, for benchmarks that need no trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "0.8B": {"vocab_size": 248320, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24},
    "tiny": {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4},
}
SPECIALS = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end "
    "vision_start vision_end vision_pad image_pad video_pad"
)
PLAIN_ADDED = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
END_OF_TEXT, END_OF_TURN, IMAGE_PAD = 248044, 248046, 248056
"""Ids of special tokens in the released tokenizer."""


def make_config(shape: str = "0.8B") -> Any:
    """Return a qwen3_5 configuration: every fourth layer has full attention, the head is tied."""
    from transformers import Qwen3_5Config

    sizes = SHAPES[shape]
    heads = sizes["hidden_size"] // 64
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    rope = {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}
    rope |= {"mrope_section": [11, 11, 10], "mrope_interleaved": True}
    text = sizes | {
        "layer_types": kinds * (sizes["num_hidden_layers"] // 4), "num_attention_heads": heads // 2,
        "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": heads,
        "linear_num_value_heads": heads, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4, "rope_parameters": rope, "tie_word_embeddings": True,
    }  # fmt: skip
    if shape == "0.8B":
        text |= {"eos_token_id": END_OF_TURN, "pad_token_id": END_OF_TEXT}
    vision = {"depth": 12, "hidden_size": 768, "num_heads": 12, "intermediate_size": 3072, "patch_size": 16,
              "out_hidden_size": sizes["hidden_size"], "num_position_embeddings": 2304}  # fmt: skip
    return Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True)


def make_base(folder: Path) -> None:
    """Write a model of the 0.8B shape in bf16, and a processor whose special tokens have the released ids."""
    import torch
    from transformers import Qwen3_5ForConditionalGeneration

    torch.manual_seed(0)
    model = Qwen3_5ForConditionalGeneration(make_config()).to(torch.bfloat16)
    model.generation_config.eos_token_id = END_OF_TURN
    model.generation_config.pad_token_id = END_OF_TEXT
    model.save_pretrained(folder)
    wide_processor().save_pretrained(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    (folder / "made.json").write_text(json.dumps({"parameters": count}))


def wide_processor() -> Any:
    """Return a processor with the tiny model's tokenizer, filled up to the size of the released one."""
    from transformers import AddedToken
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

    from dfkeval.models import tiny
    from dfkeval.models.image_text_processor import ImageTextProcessor

    base = tiny.path()
    raw = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocab = dict(raw["vocab"])
    for index in range(len(vocab), END_OF_TEXT):
        vocab[f"<unused-{index}>"] = index
    tokenizer = Qwen3_5Tokenizer(vocab=vocab, merges=[tuple(merge) for merge in raw["merges"]])
    names = [f"<|{name}|>" for name in SPECIALS.split()]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in PLAIN_ADDED])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    if tokenizer.convert_tokens_to_ids("<|image_pad|>") != IMAGE_PAD:
        raise SystemExit("the special tokens did not get the ids of the real tokenizer")
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    images = Qwen2VLImageProcessorPil(patch_size=16, size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    template = (base / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template
    return ImageTextProcessor(images, tokenizer, chat_template=template)
