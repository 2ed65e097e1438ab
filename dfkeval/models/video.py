"""Encode the videos of a row with the model's own video processor: their text in the prompt, and their tensors.

How it works: the library decides for each family which frames are taken, at which size, and what text stands
between them (Qwen3-VL and Qwen3.5 write a time before every frame), so its processor is called for both.

Guarantees:
    - Ids and tensors equal those of the library's processor on the same row.
    - A file that is not on this machine raises an error before the library could download it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.common.errors import DataError
from dfkeval.models.families import FAMILIES
from dfkeval.models.rendering import RenderedSample

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EncodedVideo:
    """One video as the model sees it.

    Attributes:
        text: The text that replaces its placeholder.
        pixels: Its patches (patches, dim).
        grid: Frames, rows and columns of patches (1, 3).
    """

    text: str
    pixels: Tensor
    grid: Tensor


def video_fault(processor: Any) -> str | None:
    """Return None if `processor` reads videos, else why it does not and what to do."""
    if getattr(processor, "video_processor", None) is not None:
        return None
    if getattr(processor, "image_processor", None) is None:
        return "this model sees text only; use model.kind: vlm or leave the row out"
    from transformers.utils import is_torchvision_available

    if not is_torchvision_available():
        return "reading it needs torchvision (and torchcodec for files): pip install torchvision torchcodec"
    readable = " or ".join(sorted({family.video_processor_class for family in FAMILIES.values()}))
    return f"read only for models with a {readable}; leave the row out"


def read(processor: Any, video: Any) -> EncodedVideo:
    """Encode a video.

    Args:
        processor: A processor with a video processor.
        video: A path, or decoded frames (frames, height, width, 3) uint8.

    Raises:
        DataError: The video cannot be read.
    """
    if isinstance(video, str) and not Path(video).is_file():
        raise DataError(f"video {video}: no such file")
    name = video if isinstance(video, str) else f"of {len(video)} frames"
    try:
        encoded = processor.video_processor(videos=[video], return_metadata=True, return_tensors="pt")
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"video {name}: cannot be read ({error})") from error
    text = processor.replace_video_token(encoded, 0)
    return EncodedVideo(text, encoded["pixel_values_videos"], encoded["video_grid_thw"])


def insert_text(parts: RenderedSample, row_id: str, videos: Sequence[Any], processor: Any) -> RenderedSample:
    """Return a training sample with the text of each video instead of its placeholder.

    Raises:
        DataError: The numbers of placeholders and videos differ, or a video cannot be read.
    """
    token = getattr(processor, "video_token", None)
    if token is None:
        return parts
    places = [part.count(token) for part in (parts.prompt, parts.empty_think + parts.answer + parts.suffix)]
    if places != [len(videos), 0]:
        raise DataError(f"row {row_id}: {_uneven(sum(places), len(videos))}")
    prompt = _filled(parts.prompt, videos, processor)
    return RenderedSample(prompt, parts.empty_think, parts.answer, parts.suffix)


def insert_into_prompt(prompt: str, videos: Sequence[Any], processor: Any) -> str:
    """Return a rendered prompt with the text of each video instead of its placeholder.

    Raises:
        DataError: The numbers of placeholders and videos differ, or a video cannot be read.
    """
    places = prompt.count(processor.video_token)
    if places != len(videos):
        raise DataError(_uneven(places, len(videos)))
    return _filled(prompt, videos, processor)


def _uneven(places: int, videos: int) -> str:
    return (
        f"{places} video placeholders, {videos} videos in the row; each video has one place, "
        "before the answer"
    )


def _filled(prompt: str, videos: Sequence[Any], processor: Any) -> str:
    pieces = prompt.split(processor.video_token)
    texts = [*(read(processor, video).text for video in videos), ""]
    return "".join(piece + text for piece, text in zip(pieces, texts, strict=True))


def with_videos(inputs: Mapping[str, Any], videos: Sequence[Any], processor: Any) -> dict[str, Any]:
    """Return the inputs of prompts whose text already has the videos' tokens, with the videos' tensors.

    Args:
        inputs: Tensors of the processor, with mm_token_type_ids (B, T).
        videos: The videos of all prompts, in order.
        processor: A processor; without videos, one for pictures alone will do.

    Raises:
        DataError: A video cannot be read, or changed since its prompt was written.
    """
    if not videos:
        return dict(inputs)
    places = inputs["input_ids"] == processor.video_token_id
    types = inputs["mm_token_type_ids"].masked_fill(places, 2)
    return {**inputs, "mm_token_type_ids": types, **tensors(processor, videos, int(places.sum()))}


def tensors(processor: Any, videos: Sequence[Any], tokens: int) -> dict[str, Tensor]:
    """Return pixel_values_videos (patches, dim) and video_grid_thw (N, 3) of a batch.

    Args:
        processor: A processor with a video processor.
        videos: The batch's N videos, in order.
        tokens: Number of video tokens in the batch.

    Raises:
        DataError: A video cannot be read, or the videos do not have `tokens` tokens any more.
    """
    import torch

    encoded = [read(processor, video) for video in videos]
    grids = torch.cat([video.grid for video in encoded])
    count = int(grids.prod(-1).sum()) // processor.video_processor.merge_size**2
    if count != tokens:
        raise DataError(f"the videos of a batch have {count} tokens, {tokens} when their rows were encoded")
    return {
        "pixel_values_videos": torch.cat([video.pixels for video in encoded]),
        "video_grid_thw": grids,
    }
