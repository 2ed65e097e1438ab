"""Label the tokens of a sample: the assistant's answer and its stop token carry loss, nothing else does.

How it works: `dfkeval.models.rendering` cuts the rendered row into prompt, empty think block, answer and suffix.
The prompt is what inference will show the model, token for token.

Guarantees:
    - No token of the prompt, of an image, of a tool response or of an empty think block carries loss.
    - The stop token carries loss; the newline after it does not.
    - A row without a scored token raises `DataError`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.rows.loss_weight import turn_weight
from dfkeval.models.rendering import RenderedSample

IGNORE = -100
"""The label of a token that carries no loss."""


@dataclass(frozen=True)
class EncodedSample:
    """One sample, ready to be batched.

    Attributes:
        id: The row's id; samples of earlier turns end in "#turnN".
        input_ids: T tokens, with as many image and video tokens as the model sees.
        labels: T labels, `IGNORE` at tokens without loss.
        images: Its images: paths, data URIs, bytes or Pillow images.
        videos: Paths of its videos, or their decoded frames (frames, height, width, 3) uint8.
        value: The row's gold value, if the stage groups rows by one.
        weight: Weight of each scored token in the loss.
        turn_weight: The part of it that the answer's own turn asks for.
    """

    id: str
    input_ids: list[int]
    labels: list[int]
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()
    value: str = ""
    weight: float = 1.0
    turn_weight: float = 1.0

    @property
    def scored(self) -> int:
        """Return the number of tokens that carry loss."""
        return sum(label != IGNORE for label in self.labels)

    @property
    def sees(self) -> bool:
        """Return whether the sample has an image or a video."""
        return bool(self.images or self.videos)

    def __len__(self) -> int:
        return len(self.input_ids)


def turns(row: dict[str, Any], which: str = "last") -> Iterator[dict[str, Any]]:
    """Yield the row cut after its last assistant turn, or after each assistant turn; turns of weight 0 stay context.

    A conversation is not scored in one pass: templates drop think blocks from history, so only a sample that
    ends with the turn has the prompt that inference would give it.

    Args:
        row: A row of the messages layout.
        which: "last", or "all" for one row for each assistant turn.

    Raises:
        DataError: The row has no assistant turn, or none of those that count carries loss.
    """
    answers = [index for index, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    if not answers:
        raise DataError(
            f"row {row['id']}: has no assistant turn, so nothing carries loss; leave it out of training"
        )
    if reason := without_loss(row, which):
        raise DataError(f"row {row['id']}: {reason}, so nothing carries loss")
    ends = (
        [index for index in answers if weight_of(row["messages"][index])] if which == "all" else answers[-1:]
    )
    for end in ends:
        yield _cut(row, row["messages"][: end + 1]) | {"id": _turn_id(row, end, ends, which)}


def weight_of(turn: dict[str, Any]) -> float:
    """Return the weight of an assistant turn in the loss, by its flags of any spelling; 1 without a flag."""
    weight = turn_weight(turn, "messages")
    return 1.0 if weight is None else float(weight)


def without_loss(row: dict[str, Any], which: str = "last") -> str:
    """Return why flags leave no assistant turn to train on; empty if one is left, or the row has none at all.

    The last answer is the target of `last` whatever its weight: one of weight 0 never hands its place to an earlier
    answer, which the row would then teach without its end."""
    answers = [turn for turn in row["messages"] if turn["role"] == "assistant"]
    weights = [*map(weight_of, answers)]
    if weights and not any(weights):
        return "every assistant turn has the weight 0"
    if weights and which == "last" and not weights[-1]:
        return "the last assistant turn has the weight 0 (turns: all trains on the others)"
    return ""


def _cut(row: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row with `turns` only; files of later turns are left out if every file has its part."""
    cut = row | {"messages": turns}
    for key, kind in (("images", "image"), ("videos", "video")):
        files = row.get(key) or []
        if files and len(files) == _part_count(row["messages"], kind):
            cut[key] = files[: _part_count(turns, kind)]
    return cut


def _part_count(turns: list[dict[str, Any]], kind: str) -> int:
    contents = (turn.get("content") for turn in turns)
    return sum(part.get("type") == kind for parts in contents if isinstance(parts, list) for part in parts)


def _turn_id(row: dict[str, Any], end: int, ends: list[int], which: str) -> str:
    return row["id"] if which == "last" or len(ends) == 1 else f"{row['id']}#turn{end}"


def tokens(parts: RenderedSample, processor: Any) -> tuple[list[int], list[int]]:
    """Return input_ids and labels of a rendered sample, in which an image is still one token.

    Each part is tokenised alone, so that the prompt's ids are exactly those that inference starts from."""
    tokenizer = getattr(processor, "tokenizer", processor)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    prompt, empty_think = ids(parts.prompt), ids(parts.empty_think)
    answer, suffix = ids(parts.answer), ids(parts.suffix)
    labels = [IGNORE] * (len(prompt) + len(empty_think)) + answer + [IGNORE] * len(suffix)
    return prompt + empty_think + answer + suffix, labels
