"""Label probabilities of a local model: every class is put where the answer names its label, and scored.

Strategy: the text of prompt, answer so far, spelling and closing is tokenized whole, as training tokenizes
it; a class's score is the sum of the log-probabilities (in fp32) of its tokens from the first one at which
the classes differ, since what comes before is the same for all and leaves in the division. Classes of several
requests share batches under the token budget, padded on the left, and a batch that does not fit into memory
is halved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from msgspec.structs import replace

from dfkeval import loading
from dfkeval.confidence import continuations, normalised
from dfkeval.samples import Completion, Request


@dataclass(frozen=True)
class _Candidate:
    """One class of one request. text: prompt and answer. tail: tokens to score at the end. length: tokens of
    the text, each image as one."""

    request: Request
    label: str
    text: str
    tail: int
    length: int


def with_label_probs(
    completions: Sequence[Completion], asked: Sequence[tuple[Request, str]],
    model: Any, processor: Any, batch_tokens: int,
) -> Iterator[Completion]:  # fmt: skip
    """The completions of one batch in order, with probabilities where the request has a slot.

    asked: each completion's request and rendered prompt."""
    candidates = [
        each
        for completion, (request, prompt) in zip(completions, asked, strict=True)
        for each in _candidates(completion, request, prompt, processor.tokenizer)
    ]
    scores: dict[str, dict[str, float]] = {}
    waiting = iter(candidates)
    while batch := list(islice(waiting, _room(candidates, completions, batch_tokens))):
        for each, score in zip(batch, _scores(batch, model, processor), strict=True):
            scores.setdefault(each.request.id, {})[each.label] = score
    for completion in completions:
        found = scores.get(completion.id)
        yield completion if found is None else replace(completion, label_probs=normalised(found))


def _room(candidates: Sequence[_Candidate], completions: Sequence[Completion], batch_tokens: int) -> int:
    """Rows of one batch: as many as the budget holds of the longest; images count as in the prompts."""
    images = max((each.n_prompt_tokens or 0 for each in completions), default=0)
    longest = max((each.length for each in candidates), default=1) + images
    return max(1, batch_tokens // longest)


def _candidates(
    completion: Completion, request: Request, prompt: str, tokenizer: Any
) -> Iterator[_Candidate]:
    if request.slot is None or completion.finish_reason == "error":
        return
    found = continuations(completion.text, request.slot)
    if found is None:
        return
    before, ways = found
    end = "" if request.slot.closing else tokenizer.eos_token
    texts = {label: f"{prompt}{before}{way}{end}" for label, way in ways.items()}
    ids = {label: tokenizer(text)["input_ids"] for label, text in texts.items()}
    common = _common(list(ids.values()))
    for label, text in texts.items():
        yield _Candidate(request, label, text, len(ids[label]) - common, len(ids[label]))


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with; at least one token of each is left."""
    shortest = min(map(len, rows)) - 1
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


def _scores(batch: Sequence[_Candidate], model: Any, processor: Any) -> list[float]:
    """Sum of the tail's log-probabilities of each candidate, natural logarithm; NaN for one that does not fit
    into memory."""
    import torch

    try:
        return _forward(batch, model, processor)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        if len(batch) == 1:
            return [float("nan")]
        middle = len(batch) // 2
        return [*_scores(batch[:middle], model, processor), *_scores(batch[middle:], model, processor)]


def _forward(batch: Sequence[_Candidate], model: Any, processor: Any) -> list[float]:
    import torch

    images = [[loading.open_image(path) for path in each.request.images] for each in batch]
    inputs = processor(
        text=[each.text for each in batch],
        images=[row for row in images if row] or None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    moved = {key: value.to(model.device) for key, value in inputs.items()}
    kept = max(each.tail for each in batch) + 1
    with torch.inference_mode():
        logits = model(**moved, logits_to_keep=kept, use_cache=False).logits.float()
        steps = torch.log_softmax(logits[:, :-1], dim=-1)
        targets = moved["input_ids"][:, -(kept - 1) :]
        each_token = steps.gather(-1, targets[..., None])[..., 0]
    return [float(row[-one.tail :].sum()) for one, row in zip(batch, each_token, strict=True)]
