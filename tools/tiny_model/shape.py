"""Shape and special tokens of the built-in model.

It is a `qwen3_5` vision-language model, as small as possible for copying, seeing and calling tools: six
layers, two thirds of them Gated DeltaNet, a vision tower of two blocks, a tied head. The special tokens and
their order are those of the released Qwen3.5 tokenizer."""

from __future__ import annotations

from typing import Any

VOCABULARY = 3072

#: (text, special). `skip_special_tokens` drops special tokens; tool and think tags are not special, as in the
#: release.
ADDED_TOKENS: tuple[tuple[str, bool], ...] = tuple(
    [
        (f"<|{name}|>", True)
        for name in (
            "endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end",
            "quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad",
        )
    ]
    + [("<tool_call>", False), ("</tool_call>", False)]
    + [(f"<|fim_{name}|>", False) for name in ("prefix", "middle", "suffix", "pad")]
    + [("<|repo_name|>", False), ("<|file_sep|>", False)]
    + [(f"<{name}>", False) for name in ("tool_response", "/tool_response", "think", "/think")]
)  # fmt: skip

PATCH = 16
MERGE = 2
#: Pictures are scaled to at most this many pixels, which are 9 image tokens.
MAX_PIXELS = 96 * 96
MIN_PIXELS = 64 * 64


def text_config(vocabulary: int) -> dict[str, Any]:
    """Return the keyword arguments of `Qwen3_5TextConfig`."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 6,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2,
        "full_attention_interval": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [3, 3, 2],
            "mrope_interleaved": True,
        },
    }


def vision_config() -> dict[str, Any]:
    """Return the keyword arguments of `Qwen3_5VisionConfig`."""
    return {
        "depth": 2,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_heads": 3,
        "out_hidden_size": 192,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "num_position_embeddings": 64,
    }


def image_processor_config() -> dict[str, Any]:
    """Return the keyword arguments of the Qwen2-VL image processor; `size` counts pixels, not sides."""
    return {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
