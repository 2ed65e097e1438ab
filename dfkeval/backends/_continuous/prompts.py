"""Prompts ready for prefill, prepared ahead by threads; and what prompts have in common.

How it works: pictures are decoded, resized and cut into patches by several threads while the device works.
The place of a picture becomes as many tokens as the picture has, as the library's processor writes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import DataError
from dfkeval.backends._continuous.weights import base_of
from dfkeval.backends._local.noise import words_of
from dfkeval.backends._local.prompts import RenderedPrompt, decoded_sha256, draw_key, failed, open_images
from dfkeval.types import Completion, Request, Sampling

#: Tokens that prompts must share before their states are kept for all of them.
SHARED = 16
#: Different beginnings that are kept at once.
PREFIXES = 4


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt, and the requests that ask it.

    Args:
        prompt: The prompt of the first request.
        requests: Its requests; several if one question is drawn several times.
        words: What each request's draws depend on.
        ids: Its tokens, pictures included.
        positions: (3, T) places of the rotary embedding; None for a text.
        shift: How far the places behind the prompt are ahead of its length.
        pixels, grid: Patches of its pictures and their grids; None without pictures.
        prefix: Index of the beginning that it shares; None for none.
    """

    prompt: RenderedPrompt
    requests: tuple[Request, ...]
    words: tuple[tuple[int, int], ...]
    ids: list[int]
    positions: Any = None
    shift: int = 0
    pixels: Any = None
    grid: Any = None
    prefix: int | None = None


@dataclass(frozen=True)
class Question:
    """Prompts that are equal: one prefill serves them all."""

    prompts: tuple[RenderedPrompt, ...]
    prefix: int | None


class Preparer:
    """Turn questions into tensors with several threads, so many ahead of what is read.

    Args:
        model: The network, for its places of the rotary embedding.
        processor: Its processor.
        workers: Number of threads.
    """

    def __init__(self, model: Any, processor: Any, workers: int) -> None:
        self.base, self.processor, self.workers = base_of(model), processor, workers

    def ahead(
        self, questions: Iterable[Question], sampling: Sampling, count: int
    ) -> Iterator[PreparedPrompt | list[Completion]]:
        """Yield the questions in order, failed requests as completions; `count` are prepared ahead."""
        coming: deque[Future[PreparedPrompt | list[Completion]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for question in questions:
                coming.append(pool.submit(self.prepare, question, sampling))
                if len(coming) > count:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def prepare(self, question: Question, sampling: Sampling) -> PreparedPrompt | list[Completion]:
        """Return one question as tensors on the CPU."""
        prompt = question.prompts[0]
        requests = tuple(each.request for each in question.prompts)
        try:
            images = open_images(prompt.request)
        except DataError as error:
            return [failed(request, str(error), refused=True) for request in requests]
        words: tuple[tuple[int, int], ...] = ((0, 0),) * len(requests)
        if sampling.temperature > 0:
            shown = decoded_sha256(images)
            words = tuple(words_of([draw_key(each, shown, sampling) for each in question.prompts]))
        if not images:
            return PreparedPrompt(prompt, requests, words, list(prompt.ids), prefix=question.prefix)
        return self._with_pictures(question, requests, words, images)

    def _with_pictures(
        self, question: Question, requests: tuple[Request, ...], words: tuple[tuple[int, int], ...],
        images: Sequence[Any],
    ) -> PreparedPrompt:  # fmt: skip
        import torch

        prompt, token = question.prompts[0], self.base.config.image_token_id
        shown = self.processor.image_processor(images=list(images), return_tensors="pt")
        grid = shown["image_grid_thw"]
        merge = self.processor.image_processor.merge_size
        counts = iter((grid.prod(-1) // merge**2).tolist())
        ids: list[int] = []
        for each in prompt.ids:
            ids.extend([each] * next(counts) if each == token else [each])
        row = torch.tensor([ids])
        positions, shift = self.base.model.get_rope_index(
            row, mm_token_type_ids=(row == token).int(), image_grid_thw=grid
        )
        pixels = shown["pixel_values"].to(self.base.model.visual.dtype)
        if self.base.device.type == "cuda":
            pixels = pixels.pin_memory()
        return PreparedPrompt(
            prompt, requests, words, ids, positions[:, 0], int(shift), pixels, grid, question.prefix
        )


def questions(
    prompts: Sequence[RenderedPrompt], picture: int
) -> tuple[list[Question], list[tuple[int, ...]]]:
    """Return the different questions in order, and the beginnings that some of them share.

    Args:
        prompts: The prompts.
        picture: Token that stands for a picture, in front of which a shared beginning ends.
    """
    same: dict[Any, list[RenderedPrompt]] = {}
    for prompt in prompts:
        asked = prompt.request
        same.setdefault((prompt.text, asked.images, asked.max_image_side), []).append(prompt)
    groups = list(same.values())
    texts = [_before_picture(group[0].ids, picture) for group in groups]
    shared = _shared(texts)
    made = []
    for group, text in zip(groups, texts, strict=True):
        fits = [at for at, prefix in enumerate(shared) if text[: len(prefix)] == prefix]
        made.append(Question(tuple(group), max(fits, key=lambda at: len(shared[at]), default=None)))
    return made, shared


def _before_picture(ids: Sequence[int], picture: int) -> tuple[int, ...]:
    """Return the tokens that another question may share: not the last one, and none behind a picture."""
    end = ids.index(picture) if picture in ids else len(ids) - 1
    return tuple(ids[:end])


def _shared(texts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the beginnings worth keeping, those that save the most first."""
    found: list[tuple[tuple[int, ...], int]] = []
    for text in sorted(texts):
        common = _common(found[-1][0], text) if found else 0
        if common >= SHARED:
            found[-1] = (text[:common], found[-1][1] + 1)
        else:
            found.append((text, 1))
    worth = [(len(text) * (count - 1), text) for text, count in found if count > 1]
    return [text for _, text in sorted(worth, reverse=True)[:PREFIXES]]


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two rows begin with alike."""
    shortest = min(len(left), len(right))
    return next((at for at in range(shortest) if left[at] != right[at]), shortest)
