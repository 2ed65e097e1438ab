"""Measure label probabilities under a local model: put every class where the answer names its label, and
score it.

How it works: prompt, answer so far, spelling and closing are tokenized as one text, as training tokenizes
them. A class's score is the sum of the log-probabilities (in fp32) of its tokens from the first one at which
the classes differ; what comes before is the same for all and cancels in the division. The common part is read
once: its keys, values and states are repeated for the classes, whose few tokens are read together in a
second, short pass. Requests share batches under the token budget, padded on the left; a batch that does not
fit into memory is halved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from dfkeval.backends._local.padding import ALONG, joined
from dfkeval.backends._local.prompts import open_images
from dfkeval.models.video import with_videos
from dfkeval.parsing.label_confidence import continuations, normalised
from dfkeval.types import Completion, Request


@dataclass(frozen=True)
class _Place:
    """Where one request names its label.

    Args:
        request: The request.
        text: Prompt and answer with one class, whose own tokens are the last `cut`.
        cut: Number of those tokens.
        tails: Class -> the tokens that tell it from the others, and what follows them.
        length: Tokens of the longest text, each image as one.
    """

    request: Request
    text: str
    cut: int
    tails: dict[str, tuple[int, ...]]
    length: int


Scores = dict[str, float]  # class -> sum of log-probabilities, natural logarithm


def with_label_probs(
    completions: Sequence[Completion], requests: Sequence[tuple[Request, str]],
    model: Any, processor: Any, batch_tokens: int,
) -> Iterator[Completion]:  # fmt: skip
    """Yield the completions of one batch in order, with probabilities if the request has a slot.

    Args:
        completions: The answers.
        requests: Request and rendered prompt of each completion.
        model: The network.
        processor: Its processor.
        batch_tokens: Tokens of one forward pass at most.
    """
    candidates = (
        _place(completion, request, prompt, processor.tokenizer)
        for completion, (request, prompt) in zip(completions, requests, strict=True)
    )
    places = [place for place in candidates if place is not None]
    images = max((completion.n_prompt_tokens or 0 for completion in completions), default=0)
    scores: dict[str, Scores | None] = {}
    for batch in _batches(places, images, batch_tokens):
        for place, score in zip(batch, _scores(batch, model, processor), strict=True):
            scores[place.request.id] = score
    for completion in completions:
        score = scores.get(completion.id)
        yield completion if score is None else replace(completion, label_probs=normalised(score))


def _batches(places: Sequence[_Place], images: int, batch_tokens: int) -> Iterator[list[_Place]]:
    """Yield consecutive places whose texts, one for each class, stay under the budget; images count as in the
    longest prompt."""
    batch: list[_Place] = []
    longest = max((place.length for place in places), default=1) + images
    for place in places:
        if batch and sum(len(member.tails) for member in (*batch, place)) * longest > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _place(completion: Completion, request: Request, prompt: str, tokenizer: Any) -> _Place | None:
    """Return where an answer names its label; None if it is not asked for or not reached."""
    if request.slot is None or completion.finish_reason == "error":
        return None
    labelled = continuations(completion.text, request.slot)
    if labelled is None:
        return None
    before, ways = labelled
    end = "" if request.slot.closing else tokenizer.eos_token
    texts = {label: f"{prompt}{before}{way}{end}" for label, way in ways.items()}
    ids = {label: tokenizer(text)["input_ids"] for label, text in texts.items()}
    common = _common(list(ids.values()))
    tails = {label: tuple(tokens[common:]) for label, tokens in ids.items()}
    text, cut = next(iter(texts.values())), len(next(iter(tails.values())))
    return _Place(request, text, cut, tails, max(map(len, ids.values())))


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens that all rows begin with; at least one token of each is left."""
    shortest = min(map(len, rows)) - 1
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


def _scores(batch: Sequence[_Place], model: Any, processor: Any) -> list[Scores | None]:
    """Return the scores of each place; None for one that does not fit into memory."""
    import torch

    try:
        return list(_forward(batch, model, processor))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    if len(batch) > 1:
        middle = len(batch) // 2
        return [*_scores(batch[:middle], model, processor), *_scores(batch[middle:], model, processor)]
    return [_in_halves(batch[0], model, processor)]


def _in_halves(place: _Place, model: Any, processor: Any) -> Scores | None:
    """Return the scores of a place whose classes do not fit into memory together."""
    names = list(place.tails)
    if len(names) == 1:
        return None
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    parts = [dataclasses.replace(place, tails={name: place.tails[name] for name in half}) for half in halves]
    scores = [_scores([part], model, processor)[0] for part in parts]
    return (
        None if None in scores else {name: score for part in scores if part for name, score in part.items()}
    )


def _forward(batch: Sequence[_Place], model: Any, processor: Any) -> list[Scores]:
    import torch

    tokenizer = processor.tokenizer
    pad = tokenizer.pad_token_id or 0
    inputs = joined([_common_part(place, processor) for place in batch], pad)
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    owner = torch.tensor([at for at, place in enumerate(batch) for _ in place.tails], device=model.device)
    tails = [tail for place in batch for tail in place.tails.values()]
    with torch.inference_mode():
        prefix = model(**inputs, logits_to_keep=1, use_cache=True)
        first = torch.log_softmax(prefix.logits[:, -1].float(), dim=-1)[owner]
        scores = first.gather(-1, torch.tensor([[tail[0]] for tail in tails], device=model.device))[:, 0]
        if max(map(len, tails)) > 1:
            scores = scores + _rest(tails, owner, inputs, prefix, model, pad)
    values = iter(scores.tolist())
    return [{label: next(values) for label in place.tails} for place in batch]


def _common_part(place: _Place, processor: Any) -> dict[str, Any]:
    """Return the inputs of what all classes of one request begin with."""
    images = open_images(place.request)
    made = processor(text=[place.text], images=images or None, return_tensors="pt")
    inputs = with_videos(made, place.request.videos, processor)
    return {key: value[:, : -place.cut] if key in ALONG else value for key, value in inputs.items()}


def _rest(
    tails: Sequence[tuple[int, ...]], owner: Any, inputs: dict[str, Any], prefix: Any, model: Any, pad: int
) -> Any:
    """Return (C,): log-probability of each tail's tokens behind its first one; tails are padded on the right,
    where nothing that is scored looks.

    `owner` (C,) is the row of `inputs` that a tail continues, `prefix` the model's output for `inputs`."""
    import torch

    width = max(map(len, tails))
    ids = torch.tensor([[*tail, *[pad] * (width - len(tail))] for tail in tails], device=owner.device)
    real = torch.tensor([[at < len(tail) for at in range(1, width)] for tail in tails], device=owner.device)
    mask = inputs["attention_mask"][owner]
    prefix.past_key_values.reorder_cache(owner)
    logits = model(
        input_ids=ids[:, :-1],
        attention_mask=torch.cat([mask, torch.ones_like(ids[:, :-1], dtype=mask.dtype)], dim=1),
        position_ids=_positions(mask, owner, inputs, prefix, width - 1),
        past_key_values=prefix.past_key_values,
        use_cache=True,
    ).logits
    steps = torch.log_softmax(logits.float(), dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (steps * real).sum(dim=1)


def _positions(mask: Any, owner: Any, inputs: dict[str, Any], prefix: Any, count: int) -> Any:
    """Return (3, C, count): positions behind the common part, as the first pass would count them.

    With images or videos the model counts real tokens and adds what images take; without, it counts the padding too.
    They are given here because the model would use the offset of the last batch with images for one
    without."""
    import torch

    if "image_grid_thw" in inputs or "video_grid_thw" in inputs:
        start = mask.sum(dim=1) + prefix.rope_deltas.to(mask.device)[owner, 0]
    else:
        start = torch.full_like(owner, mask.shape[1])
    behind = start[:, None] + torch.arange(count, device=owner.device)
    return behind[None].expand(3, -1, -1)
