"""Render and measure requests, for backends that hold the model's own processor.

Guarantees:
- Template, tools and think switch are applied in this one place.
- A row whose turns do not have one place for each of its images is a failed request, because the processor
  would give it a neighbour's image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.media.images import image_size, open_image
from dfkeval.models import rendering, video
from dfkeval.parsing.tags import THINK_OPEN
from dfkeval.types import Completion, Request, Sampling, media_of, refuse_unseen

#: The processor refuses pictures whose long side is more than this many times the short one.
_SLIMMEST = 200


@dataclass(frozen=True)
class RenderedPrompt:
    """A request as text.

    Args:
        request: The request.
        text: Its rendered prompt, with one placeholder for each image.
        tokens: Tokens of the prompt at most, images included.
        ids: Tokens of the text, one for each image.
    """

    request: Request
    text: str
    tokens: int
    ids: tuple[int, ...] = ()


def render(processor: Any, request: Request, sampling: Sampling, *, videos: bool = False) -> str:
    """Return the prompt's text, as training renders it; with `videos`, the text of each video stands in it.

    Raises `DataError` if its places do not match the row's images or videos, if it holds a video that is not
    read, or if the template refuses its turns or does not read one of its options."""
    refuse_unseen(request, seen=("video",) if videos else ())
    options = sampling.template_options(request)
    if rendering.reads(processor, rendering.THINKING):
        options[rendering.THINKING] = sampling.thinking
    row: dict[str, Any] = {
        "id": request.id, "messages": request.messages, "tools": request.tools, "chat_template_kwargs": options
    }  # fmt: skip
    text = rendering.render(processor, row, request.messages, generation_prompt=True)
    places, images = text.count(processor.image_token), len(request.images)
    if places != images:
        raise DataError(f"the turns have {places} places for images, and the row has {images} images")
    if "video" not in media_of(request.messages, request.videos):
        return text
    fault = video.video_fault(processor)
    if fault is not None:
        raise DataError(f"the row holds video: {fault}")
    return video.insert_into_prompt(text, request.videos, processor)


def measured(
    processor: Any, requests: Iterable[Request], sampling: Sampling, *, videos: bool = False
) -> tuple[list[RenderedPrompt], list[Completion]]:
    """Return the prompts, longest first, and the failed requests of rows whose images cannot be read."""
    rendered: list[tuple[Request, str, int]] = []
    failures: list[Completion] = []
    for request in requests:
        try:
            text = render(processor, request, sampling, videos=videos)
            rendered.append((request, text, _image_tokens(processor, request)))
        except DataError as error:
            failures.append(failed(request, str(error), refused=True))
    texts = [text for _, text, _ in rendered]
    rows = processor.tokenizer(texts)["input_ids"] if texts else []  # all at once, on several cores
    prompts = [
        RenderedPrompt(request, text, len(ids) + images, tuple(ids))
        for (request, text, images), ids in zip(rendered, rows, strict=True)
    ]
    failures += [_too_long(prompt) for prompt in prompts if _is_too_long(prompt)]
    asked = [prompt for prompt in prompts if not _is_too_long(prompt)]
    return sorted(asked, key=lambda prompt: -prompt.tokens), failures


def _is_too_long(prompt: RenderedPrompt) -> bool:
    most = prompt.request.max_prompt_tokens
    return most is not None and prompt.tokens > most


def _too_long(prompt: RenderedPrompt) -> Completion:
    most = prompt.request.max_prompt_tokens
    reason = f"the prompt has {prompt.tokens} tokens, pictures included, and the limit is {most}"
    return failed(prompt.request, reason, refused=True)


def _image_tokens(processor: Any, request: Request) -> int:
    """Upper bound of the tokens of the request's images, from their sizes alone."""
    images = processor.image_processor
    side = images.patch_size * images.merge_size
    total = 0
    for path in request.images:
        width, height = image_size(path)
        if max(width, height) > _SLIMMEST * min(width, height):
            raise DataError(f"image {path!s:.200}: {width} x {height} pixels are too slim for the model")
        if request.max_image_side is not None:
            width, height = min(width, request.max_image_side), min(height, request.max_image_side)
        area = min(max(width * height, images.size["shortest_edge"]), images.size["longest_edge"])
        total += area // (side * side) + 1
    return total


def open_images(request: Request) -> list[Any]:
    """Return the images of a request as they are shown. Raises `DataError` if one cannot be read."""
    return [open_image(path, max_side=request.max_image_side) for path in request.images]


def failed(request: Request, reason: str, *, refused: bool = False) -> Completion:
    """Return a failed request with its reason; `refused` says that it lies in the question."""
    return Completion(id=request.id, text="", finish_reason="error", error=reason, refused=refused)


def is_late(request: Request) -> bool:
    """Return whether the time of a request is up."""
    return request.deadline is not None and time.monotonic() >= request.deadline


def late(request: Request) -> Completion:
    """Return a request whose time was up before its answer ended."""
    reason = "the time was up before the answer ended"
    return Completion(id=request.id, text="", finish_reason="error", error=reason, timed_out=True)


def opens_think(text: str) -> bool:
    """Return whether a rendered prompt ends inside a think block."""
    return text.rstrip().endswith(THINK_OPEN)


def resized_sha256(processor: Any, images: Sequence[Any]) -> list[str]:
    """Return the hash of each image as the model sees it: resized, scaled and cut into patches."""
    hashes = []
    for image in images:
        inputs = processor.image_processor(images=[image], return_tensors="np")
        digest = hashlib.sha256(str(inputs["image_grid_thw"].tolist()).encode())
        digest.update(inputs["pixel_values"].tobytes())
        hashes.append(digest.hexdigest())
    return hashes


def video_sha256(processor: Any, videos: Sequence[str]) -> list[str]:
    """Return the hash of each video as the model sees it: its frames, resized and cut into patches."""
    read = [video.read(processor, path) for path in videos]
    return [hashlib.sha256(each.pixels.contiguous().numpy().tobytes()).hexdigest() for each in read]


def decoded_sha256(images: Sequence[Any]) -> str:
    """Return the hash of decoded images, before any resizing."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def draw_key(prompt: RenderedPrompt, images: str, sampling: Sampling) -> str:
    """Return what a row's draws depend on: seed, number of the draw, and the question with the hash of its
    images; no neighbour and no id."""
    return f"{sampling.seed}\n{prompt.request.draw_index}\n{images}\n{prompt.text}"


def fitted_size(processor: Any, image: Any) -> tuple[int, int]:
    """Return (width, height) in pixels to which the processor resizes an image; an image of that size stays
    as it is."""
    images = processor.image_processor
    _, height, width = images(images=[image], return_tensors="np")["image_grid_thw"][0].tolist()
    return int(width) * images.patch_size, int(height) * images.patch_size
