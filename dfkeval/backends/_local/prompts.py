"""Requests as rendered and measured prompts: what a backend that holds the model's own processor asks.

Promises: the template, tools and think switch are applied in this one place; a row whose turns have not one
place for each of its images is a failed request, since the processor would give it a neighbour's image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.media.images import image_size
from dfkeval.parsing.tags import THINK_OPEN
from dfkeval.types import Completion, Request, Sampling, refuse_unseen

#: The processor refuses pictures whose long side is more than so many times the short one.
_SLIMMEST = 200


@dataclass(frozen=True)
class Prompt:
    """text: with one placeholder an image. tokens: at most so many, images included."""

    request: Request
    text: str
    tokens: int


def render(processor: Any, request: Request, sampling: Sampling) -> str:
    """The prompt's text. Raises `DataError` when its places do not match the row's images, or it would show a
    video."""
    refuse_unseen(request.messages)
    text: str = processor.apply_chat_template(
        request.messages, tools=request.tools, tokenize=False, add_generation_prompt=True,
        enable_thinking=sampling.thinking,
    )  # fmt: skip
    places, images = text.count(processor.image_token), len(request.images)
    if places != images:
        raise DataError(f"the turns have {places} places for images, and the row has {images} images")
    return text


def measured(
    processor: Any, requests: Iterable[Request], sampling: Sampling
) -> tuple[list[Prompt], list[Completion]]:
    """Prompts, longest first, and the failed requests of rows whose images cannot be read."""
    prompts: list[Prompt] = []
    broken: list[Completion] = []
    for request in requests:
        try:
            text = render(processor, request, sampling)
            tokens = len(processor.tokenizer(text)["input_ids"]) + _image_tokens(processor, request)
        except DataError as error:
            broken.append(failed(request, str(error)))
            continue
        prompts.append(Prompt(request, text, tokens))
    return sorted(prompts, key=lambda prompt: -prompt.tokens), broken


def _image_tokens(processor: Any, request: Request) -> int:
    """Upper bound of the tokens of the request's images, from their sizes alone."""
    images = processor.image_processor
    side = images.patch_size * images.merge_size
    total = 0
    for path in request.images:
        width, height = image_size(path)
        if max(width, height) > _SLIMMEST * min(width, height):
            raise DataError(f"image {path!s:.200}: {width} x {height} pixels are too slim for the model")
        area = min(max(width * height, images.size["shortest_edge"]), images.size["longest_edge"])
        total += area // (side * side) + 1
    return total


def failed(request: Request, why: str) -> Completion:
    """No answer, and why."""
    return Completion(id=request.id, text="", finish_reason="error", error=why)


def opens_think(text: str) -> bool:
    """Whether a rendered prompt ends inside a think block."""
    return text.rstrip().endswith(THINK_OPEN)


def resized_sha256(processor: Any, images: Sequence[Any]) -> list[str]:
    """Hash of each image as the model sees it: resized, scaled, cut into patches."""
    found = []
    for image in images:
        inputs = processor.image_processor(images=[image], return_tensors="np")
        digest = hashlib.sha256(str(inputs["image_grid_thw"].tolist()).encode())
        digest.update(inputs["pixel_values"].tobytes())
        found.append(digest.hexdigest())
    return found


def decoded_sha256(images: Sequence[Any]) -> str:
    """Hash of decoded images, before any resizing."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def fitted(processor: Any, image: Any) -> tuple[int, int]:
    """(width, height) in pixels to which the processor resizes `image`; an image of that size stays as it
    is."""
    images = processor.image_processor
    _, height, width = images(images=[image], return_tensors="np")["image_grid_thw"][0].tolist()
    return int(width) * images.patch_size, int(height) * images.patch_size
