"""Measure the likelihood of given answers under a local model, with one forward pass a batch.

How it works: a row is cut into prompt and answer where training cuts it (`dfkeval.models.rendering`), and
each part is tokenized alone. The answer's tokens are scored at the end of left-padded rows, so that logits
are kept for answers only. Rows are encoded in windows, sorted by length inside, and batched under the token
budget; a batch that does not fit into memory is halved.

Guarantees:
- A row's number does not depend on its neighbours.
- A row that cannot be rendered, or whose image cannot be read, has an error and costs no other row its
  number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dfkdata.common.errors import DataError
from dfkeval.backends._local.padding import ALONG, Inputs, joined, length
from dfkeval.backends._local.prompts import open_images
from dfkeval.models import video
from dfkeval.models.rendering import THINKING, render_sample
from dfkeval.types import GoldAnswer, Likelihood, Sampling, refuse_unseen


@dataclass(frozen=True)
class _Row:
    """The tensors of one row without padding; the last `scored` tokens are the answer."""

    id: str
    inputs: Inputs
    scored: int

    @property
    def length(self) -> int:
        return length(self.inputs)


def likelihoods(
    gold_answers: Iterable[GoldAnswer],
    model: Any,
    processor: Any,
    sampling: Sampling,
    batch_tokens: int,
    batch_size: int,
) -> Iterator[Likelihood]:
    """Yield one likelihood for each gold answer, longest first within a window of four batches."""
    waiting = iter(gold_answers)
    while window := list(islice(waiting, 4 * batch_size)):
        rows: list[_Row] = []
        for gold_answer in window:
            try:
                rows.append(_encoded(gold_answer, processor, sampling))
            except DataError as error:
                yield Likelihood(id=gold_answer.request.id, error=str(error))
        rows.sort(key=lambda row: -row.length)
        for batch in _batches(rows, batch_tokens, batch_size):
            yield from _scored(batch, model, processor.tokenizer.pad_token_id or 0)


def _encoded(gold_answer: GoldAnswer, processor: Any, sampling: Sampling) -> _Row:
    """Return prompt, empty think block and answer as one row. Raises `DataError`."""
    import torch

    request = gold_answer.request
    fault = video.video_fault(processor) if request.videos else None
    if fault is not None:
        raise DataError(f"the row holds video: {fault}")
    refuse_unseen(request, seen=("video",) if request.videos else ())
    row: dict[str, Any] = {
        "id": request.id, "messages": [*request.messages, gold_answer.turn], "tools": request.tools
    }  # fmt: skip
    options = sampling.template_options(request)
    row["chat_template_kwargs"] = options | ({THINKING: True} if sampling.thinking else {})
    parts = video.insert_text(render_sample(row, processor), request.id, request.videos, processor)
    if parts.prompt.count(processor.image_token) != len(request.images):
        raise DataError(f"the turns do not have one place for each of the row's {len(request.images)} images")
    images = open_images(request)
    made = processor(text=[parts.prompt], images=images or None, return_tensors="pt")
    inputs = video.with_videos(made, request.videos, processor)
    empty_think, answer = (
        processor.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        for text in (parts.empty_think, parts.answer)
    )
    tail = torch.tensor([[*empty_think, *answer]], dtype=inputs["input_ids"].dtype)
    ends = {"input_ids": tail, "attention_mask": torch.ones_like(tail)}
    for key in ALONG:
        if key in inputs:
            inputs[key] = torch.cat([inputs[key], ends.get(key, torch.zeros_like(tail))], dim=1)
    return _Row(request.id, inputs, len(answer))


def _batches(rows: Sequence[_Row], batch_tokens: int, batch_size: int) -> Iterator[list[_Row]]:
    """Yield consecutive rows, longest first, whose padded size stays under the budget; a row above it comes
    alone."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (len(batch) >= batch_size or batch[0].length * (len(batch) + 1) > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _scored(batch: Sequence[_Row], model: Any, pad: int) -> Iterator[Likelihood]:
    import torch

    try:
        numbers = _forward(batch, model, pad)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if len(batch) == 1:
            yield Likelihood(id=batch[0].id, error=f"out of memory for {batch[0].length} tokens: {error}")
            return
        middle = len(batch) // 2
        yield from _scored(batch[:middle], model, pad)
        yield from _scored(batch[middle:], model, pad)
        return
    for row, nll in zip(batch, numbers, strict=True):
        yield Likelihood(id=row.id, nll=nll, tokens=row.scored)


def _forward(batch: Sequence[_Row], model: Any, pad: int) -> list[float]:
    """Negative log-likelihood of each row's answer, natural logarithm, summed in fp64 over fp32 terms."""
    import torch

    inputs = {
        key: value.to(model.device) for key, value in joined([row.inputs for row in batch], pad).items()
    }
    scored = max(row.scored for row in batch) + 1
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=scored, use_cache=False).logits[:, -scored:-1].float()
        targets = inputs["input_ids"][:, -(scored - 1) :]
        picked = logits.gather(-1, targets[..., None])[..., 0]
        nll = (torch.logsumexp(logits, dim=-1) - picked).double()
    return [float(line[-row.scored :].sum()) for row, line in zip(batch, nll, strict=True)]
