"""Pictures of a batch as bytes, which become the network's numbers on the device.

How it works: an image processor turns each byte of a resized picture into a float, copies it several times, and
repeats it for a second frame. Here the resized bytes are only put into the order of the network's patches, an eighth
of the memory, and scaled on the device.

Guarantees:
    - The numbers equal the processor's up to fp32 rounding; `byte_pixels` proves that on drawn pictures first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

BYTES = "pixel_bytes"
"""Key of a batch that stands for pixel_values until it is on the device."""
ROUNDING = 1e-6
"""Largest difference of a number from the processor's."""

Resize = Callable[[Any, tuple[int, int], Any], np.ndarray[Any, np.dtype[np.uint8]]]
"""Takes an RGB picture, its new (height, width) and a filter, and returns (height, width, 3)."""


def _by_pillow(picture: Any, size: tuple[int, int], resample: Any) -> Any:
    return np.asarray(picture.resize((size[1], size[0]), resample=resample))


def _by_torchvision(picture: Any, size: tuple[int, int], resample: Any) -> Any:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as library

    modes = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
    whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    resized = library.resize(whole, list(size), interpolation=modes[int(resample)], antialias=True)
    return resized.permute(1, 2, 0).numpy()


class BytePixels:
    """Make the bytes of pictures, and the network's numbers of them.

    Args:
        image_processor: An image processor of the Qwen2-VL kind.
        resize: Resizes pictures as it does.
    """

    def __init__(self, image_processor: Any, resize: Resize = _by_pillow) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        self.size, self.resize = smart_resize, resize
        self.patch, self.merge = int(image_processor.patch_size), int(image_processor.merge_size)
        self.frames, self.filter = int(image_processor.temporal_patch_size), image_processor.resample
        self.factor = float(image_processor.rescale_factor)
        self.mean, self.std = list(image_processor.image_mean), list(image_processor.image_std)

    def __call__(self, pictures: Sequence[Any], budget: dict[str, Any]) -> dict[str, Tensor]:
        """Return pixel_bytes (patches, 3 * patch * patch) uint8 and image_grid_thw (N, 3) of RGB pictures."""
        parts, grids = [], []
        for picture in pictures:
            height, width = self.size(
                picture.height,
                picture.width,
                factor=self.patch * self.merge,
                min_pixels=budget["min_pixels"],
                max_pixels=budget["max_pixels"],
            )
            resized = self.resize(picture, (height, width), self.filter)
            rows, columns, merge, patch = height // self.patch, width // self.patch, self.merge, self.patch
            tiles = resized.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
            parts.append(tiles.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, -1))
            grids.append([1, rows, columns])
        return {BYTES: torch.from_numpy(np.concatenate(parts)), "image_grid_thw": torch.tensor(grids)}

    def values(self, pixels: Tensor) -> Tensor:
        """Return the network's numbers (patches, 3 * frames * patch * patch) of bytes, in fp32."""
        shape = (len(pixels), 3, 1, self.patch**2)
        mean, std = (
            torch.tensor(each, dtype=torch.float32, device=pixels.device).view(1, 3, 1, 1)
            for each in (self.mean, self.std)
        )
        scaled = (pixels.view(shape).double() * self.factor).float()
        return ((scaled - mean) / std).expand(-1, -1, self.frames, -1).reshape(len(pixels), -1)


def byte_pixels(image_processor: Any) -> BytePixels | None:
    """Return what makes bytes for an image processor, None if its numbers are others."""
    for resize in (_by_pillow, _by_torchvision):
        try:
            made = BytePixels(image_processor, resize)
            if _equal(made, image_processor):
                return made
        except (AttributeError, ImportError, KeyError, TypeError, ValueError):
            continue  # a processor of another kind
    return None


def _equal(made: BytePixels, image_processor: Any) -> bool:
    from PIL import Image

    noise = np.random.default_rng(0)
    unit = made.patch * made.merge
    pictures = [
        Image.fromarray(noise.integers(0, 256, (tall, wide, 3), dtype=np.uint8))
        for tall, wide in ((3 * unit + 5, 2 * unit - 3), (2 * unit, 5 * unit))
    ]
    size = {"shortest_edge": 2 * unit**2, "longest_edge": 8 * unit**2}
    budget = {"size": size, "min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    theirs = image_processor(images=pictures, return_tensors="pt", **budget)
    ours = made(pictures, budget)
    values = made.values(ours[BYTES])
    if values.shape != theirs["pixel_values"].shape:
        return False
    apart = float((values - theirs["pixel_values"]).abs().max())
    return apart <= ROUNDING and torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
