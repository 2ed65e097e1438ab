"""Run the vision tower on every batch, which training with sharded weights needs (FSDP, DeepSpeed ZeRO).

A module's shards are gathered from all ranks when it runs, so every rank must run the same modules in the same
order. A rank whose batch holds text only would leave the vision tower out, and all would wait for ever.

How it works: such a batch runs the tower on the smallest possible image, and zero times its output is added to
the embeddings.

Guarantees:
    - Values and gradients are those of the batch alone.
    - Without sharding nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dfkeval.models.families import family_of

PICTURES = ("pixel_values", "pixel_values_videos")


@contextmanager
def vision_on_every_rank(body: Any, enabled: bool) -> Iterator[None]:
    """Let a network run its vision tower on every batch within, if `enabled`.

    Args:
        body: The network below the head.
        enabled: Whether the weights are sharded and the stage has images.
    """
    names = family_of(body.config.model_type).vision
    tower = next((getattr(body, name) for name in names if hasattr(body, name)), None)
    if not enabled or tower is None:
        yield
        return
    seen = {"pictures": False}

    def note(module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        seen["pictures"] = any(inputs.get(name) is not None for name in PICTURES)

    def add_zero(module: nn.Module, args: Any, inputs: dict[str, Any]) -> Any:
        if seen["pictures"]:
            return None
        zero = _zero(tower, body.config.vision_config)
        return args, inputs | {
            "inputs_embeds": inputs["inputs_embeds"] + zero.to(inputs["inputs_embeds"].dtype)
        }

    # where a picture's features would come in: after the embedding, before the layers of the text
    handles = [
        body.register_forward_pre_hook(note, with_kwargs=True),
        body.language_model.register_forward_pre_hook(add_zero, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zero(tower: nn.Module, config: Any) -> Tensor:
    """Return zero as a result of the whole tower."""
    like = next(tower.parameters())
    merge = config.spatial_merge_size
    width = getattr(config, "in_channels", 3) * config.temporal_patch_size * config.patch_size**2
    pixels = torch.zeros(merge * merge, width, device=like.device, dtype=like.dtype)
    grid = torch.tensor([[1, merge, merge]], device=like.device)
    sums = [part.float().sum() for part in _tensors(tower(pixels, grid_thw=grid))]
    return torch.stack(sums).sum() * 0


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield every floating tensor in a nested model output."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
