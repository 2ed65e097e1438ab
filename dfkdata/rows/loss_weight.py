"""Read how much the loss of an assistant turn counts, in whatever way a trainer spells it.

| key | trainer | means |
|---|---|---|
| `weight` | OpenAI (0 or 1), this package (any number from 0 up) | the weight |
| `loss`, `loss_scale` | ms-swift | trained or not; the weight |
| `loss_weight` | LLaMA-Factory | the weight |
| `train`, `training` | axolotl | trained or not |
| `trainable` | home-made sets | trained or not |

Guarantees:
- Canonical turns have one key, `weight`, and only on assistant turns; a turn without it counts once.
- A flag that cannot be honoured is a `RowError`, and so is one of a whole row, which does not say which turn it
  is about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from dfkdata.rows.record import RowError

SWITCHES = ("loss", "train", "training", "trainable")
SCALES = ("weight", "loss_scale", "loss_weight")
_UNREAD = ("train_detail", "masked", "loss_mask")
FLAGS = frozenset((*SWITCHES, *SCALES, *_UNREAD))
"""Keys of a turn that say how much its loss counts."""
ROW_FLAGS = frozenset(("loss", "trainable", "loss_mask", *SCALES))
"""Keys of a whole row that look like such a flag; `train` and `training` would rather name a split."""


def turn_weight(turn: Mapping[str, Any], path: str) -> float | None:
    """Return the weight of a turn's loss; None if the turn has no flag.

    Args:
        turn: The turn, with flags of any spelling.
        path: Its place in the row, for errors.

    Raises:
        RowError: A flag has no value that can be read, is not known to mean a weight, or contradicts another.
    """
    if FLAGS.isdisjoint(turn):
        return None
    for key in _UNREAD:
        if turn.get(key) is not None:
            hint = "only whole turns are weighted; write weight: 0 or a number"
            raise _error(f"{key} is not supported", f"{path}.{key}", turn[key], hint)
    switches = {_switch(turn[key], f"{path}.{key}") for key in SWITCHES if turn.get(key) is not None}
    scales = {_scale(turn[key], f"{path}.{key}") for key in SCALES if turn.get(key) is not None}
    if len(switches) > 1 or len(scales) > 1 or (switches and scales and switches != {scales != {0}}):
        flags = {key: turn[key] for key in (*SWITCHES, *SCALES) if turn.get(key) is not None}
        raise _error("the turn's loss flags contradict one another", path, flags, "keep one of them")
    return next(iter(scales), None) if scales else (1 if switches.pop() else 0) if switches else None


def row_flags(row: Mapping[str, Any]) -> Iterator[RowError]:
    """Yield an error for each flag of a whole row that asks for another weight than 1.

    Args:
        row: The row. A list is a flag if all its entries are; a text is one if it is a number, true or false, as in
            a CSV file. Other columns of these names are none.
    """
    for key in sorted(ROW_FLAGS.intersection(row)):
        value = row[key]
        if not _says_one(value):
            hint = "write it at the turns that it is about, or rename the column if it is no flag"
            yield _error(f"{key} of the whole row names no turn", key, value, hint)


def canonical_weight(turn: dict[str, Any], path: str) -> RowError | None:
    """Put the flags of a turn together as its `weight`, in place.

    Returns:
        What is wrong with flags that ask to train on a turn of another role than the assistant's; they are
        left out.

    Raises:
        RowError: The flags cannot be honoured.
    """
    weight = turn_weight(turn, path)
    for key in FLAGS.intersection(turn):
        del turn[key]
    if turn["role"] == "assistant":
        if weight is not None:
            turn["weight"] = weight
    elif weight:
        hint = "only assistant turns are trained on; leave the flag out, or let it pass with LOSS_FLAG=warn"
        return _error(f"a turn of the role {turn['role']!r} that asks to be trained on", path, weight, hint)
    return None


def unscored(turns: list[dict[str, Any]]) -> Iterator[RowError]:
    """Yield an error if the last answer has the weight 0, so that training has no target, or another one."""
    answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
    if answers and turns[answers[-1]].get("weight") == 0:
        others = any(turns[number].get("weight") != 0 for number in answers)
        way = (
            "train with turns: all, end the row with an answer that counts" if others else "give it a weight"
        )
        hint = f"{way}, or leave the row out; training with turns: last leaves it out and counts it"
        path = f"messages.{answers[-1]}.weight"
        yield RowError("LOSS_LAST", "the last answer has the loss weight 0", path=path, value=0, hint=hint)


def _says_one(value: Any) -> bool:
    """Return whether a column asks for nothing else than the weight 1, or is no flag."""
    if isinstance(value, list):
        flags = [_number(each) for each in value]
        return None in flags or all(each == 1 or math.isnan(each) for each in flags if each is not None)
    flag = _number(value)
    return flag is None or flag == 1 or math.isnan(flag)


def _number(value: Any) -> float | None:
    """Return the weight that a value may mean, NaN for a missing one; None if it is no flag."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        word = value.strip().casefold()
        value = {"true": 1, "false": 0, "": math.nan}.get(word, word)
    if isinstance(value, bool | int | float | str):
        with suppress(ValueError):
            return float(value)
    return None


def _switch(value: Any, path: str) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise _error("neither true nor false", path, value, "write true or false")


def _scale(value: Any, path: str) -> float:
    """Return a number from 0 up, 0 and 1 as whole numbers."""
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return int(value) if value in (0, 1) else value
    raise _error("not a number from 0 up", path, value, "write 0 for a turn that is not trained on")


def _error(reason: str, path: str, value: Any, hint: str) -> RowError:
    return RowError("LOSS_FLAG", reason, path=path, value=value, hint=hint)
