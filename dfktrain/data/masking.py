"""Which tokens carry loss: the assistant's answer and its stop token, and nothing else.

Strategy: `dfkeval.models.rendering` cuts the rendered row into prompt, silent think block, answer and rest; the sample's
prompt is what inference will show the model, token for token.
Promises: no token of the prompt, of an image, of a tool response or of an empty think block carries loss; the
stop token does, the newline after it does not. A row without a scored token is a `DataError`, never a silent
zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import DataError
from dfkeval.models.rendering import RenderedSample as RenderedSample
from dfkeval.models.rendering import render as render
from dfkeval.models.rendering import render_sample as render_sample

IGNORE = -100
"""The label of a token that carries no loss."""


@dataclass(frozen=True)
class EncodedSample:
    """One sample, ready to be batched. input_ids and labels: (T,), image and video tokens at their final
    number. videos: paths, or decoded frames.

    value: the row's gold value, where the stage asks for one. weight: what a scored token counts."""

    id: str
    input_ids: list[int]
    labels: list[int]
    images: tuple[str, ...] = ()
    videos: tuple[Any, ...] = ()
    value: str = ""
    weight: float = 1.0

    @property
    def scored(self) -> int:
        """Tokens that carry loss."""
        return sum(label != IGNORE for label in self.labels)

    @property
    def sees(self) -> bool:
        """Whether it holds a picture, still or moving."""
        return bool(self.images or self.videos)

    def __len__(self) -> int:
        return len(self.input_ids)


def turns(row: dict[str, Any], which: str = "last") -> Iterator[dict[str, Any]]:
    """The samples of a row: itself up to its last assistant turn, or one for every assistant turn ("all").

    A conversation is not scored in one pass: templates drop think blocks from history, so only a sample that
    ends with the turn has the prompt that inference would give it."""
    ends = [index for index, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    if not ends:
        raise DataError(
            f"row {row['id']}: has no assistant turn, so nothing carries loss; leave it out of training"
        )
    for end in ends if which == "all" else ends[-1:]:
        yield _shown(row, row["messages"][: end + 1]) | {"id": _turn_id(row, end, ends, which)}


def _shown(row: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with `turns`, and without the files of later ones, where every file has its place."""
    kept = row | {"messages": turns}
    for key, kind in (("images", "image"), ("videos", "video")):
        files = row.get(key) or []
        if files and len(files) == _places(row["messages"], kind):
            kept[key] = files[: _places(turns, kind)]
    return kept


def _places(turns: list[dict[str, Any]], kind: str) -> int:
    """Parts of `kind` in the turns."""
    contents = (turn.get("content") for turn in turns)
    return sum(part.get("type") == kind for parts in contents if isinstance(parts, list) for part in parts)


def _turn_id(row: dict[str, Any], end: int, ends: list[int], which: str) -> str:
    return row["id"] if which == "last" or len(ends) == 1 else f"{row['id']}#turn{end}"


def tokens(parts: RenderedSample, processor: Any) -> tuple[list[int], list[int]]:
    """(input_ids, labels) of a rendered sample, images still one token each.

    Each part is tokenised alone: the prompt's ids are then exactly those that inference starts from."""
    tokenizer = getattr(processor, "tokenizer", processor)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    prompt, silent, answer, rest = (
        ids(parts.prompt),
        ids(parts.empty_think),
        ids(parts.answer),
        ids(parts.suffix),
    )
    labels = [IGNORE] * (len(prompt) + len(silent)) + answer + [IGNORE] * len(rest)
    return prompt + silent + answer + rest, labels
