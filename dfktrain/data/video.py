"""Videos of a row: how they stand in the prompt's text, and their tensors, both by the model's own video
processor.

Strategy: which frames are taken, at which size, and what text stands between them is the library's rule for
the family (Qwen3-VL and Qwen3.5 write a time before every frame), so it is asked and not repeated here.
Promises: ids and tensors equal those of the library's processor on the same row; a file that is not on this
machine is refused before the library could fetch it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dfkdata.common.errors import DataError
from dfkeval.models.families import FAMILIES
from dfkeval.models.rendering import RenderedSample


@dataclass(frozen=True)
class EncodedVideo:
    """One video as the model sees it. text: what stands for its placeholder. pixels: (patches, dim). grid:
    (1, 3), frames, rows and columns of patches."""

    text: str
    pixels: Tensor
    grid: Tensor


def refusal(processor: Any) -> str | None:
    """None where `processor` reads videos, else why not and the way out."""
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
    """The video, a path or decoded frames (T, H, W, 3) uint8. Raises `DataError` for one that cannot be
    read."""
    if isinstance(video, str) and not Path(video).is_file():
        raise DataError(f"video {video}: no such file")
    name = video if isinstance(video, str) else f"of {len(video)} frames"
    try:
        made = processor.video_processor(videos=[video], return_metadata=True, return_tensors="pt")
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"video {name}: cannot be read ({error})") from error
    text = processor.replace_video_token(made, 0)
    return EncodedVideo(text, made["pixel_values_videos"], made["video_grid_thw"])


def fill(parts: RenderedSample, row_id: str, videos: Sequence[Any], processor: Any) -> RenderedSample:
    """The sample with the text of each video in the place of its placeholder. Raises `DataError` if places
    and videos are not as many."""
    token = getattr(processor, "video_token", None)
    if token is None:
        return parts
    places = [part.count(token) for part in (parts.prompt, parts.empty_think + parts.answer + parts.suffix)]
    if places != [len(videos), 0]:
        raise DataError(
            f"row {row_id}: {sum(places)} video placeholders, {len(videos)} videos in the row; "
            f"each video has one place, before the answer"
        )
    pieces = parts.prompt.split(token)
    texts = [*(read(processor, video).text for video in videos), ""]
    prompt = "".join(piece + text for piece, text in zip(pieces, texts, strict=True))
    return RenderedSample(prompt, parts.empty_think, parts.answer, parts.suffix)


def tensors(processor: Any, videos: Sequence[Any], tokens: int) -> dict[str, Tensor]:
    """pixel_values_videos (patches, dim) and video_grid_thw (N, 3) of a batch. Raises `DataError` unless they
    fill `tokens` places, as many as the videos had when the rows were encoded."""
    import torch

    films = [read(processor, video) for video in videos]
    grids = torch.cat([film.grid for film in films])
    made = int(grids.prod(-1).sum()) // processor.video_processor.merge_size**2
    if made != tokens:
        raise DataError(f"the videos of a batch have {made} tokens, {tokens} when their rows were encoded")
    return {
        "pixel_values_videos": torch.cat([film.pixels for film in films]),
        "video_grid_thw": grids,
    }
