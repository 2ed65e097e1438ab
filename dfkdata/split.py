"""Which side a row belongs to: train, validation or test.

Strategy: the group's name and the seed are hashed to a number in [0, 1); below the test share is test, then
validation, the rest train. Promises: rows of one group are never on two sides; adding, removing or reordering
rows moves no other row; equal seeds give equal splits on every machine."""

from __future__ import annotations

from hashlib import sha256

from dfkdata.errors import ConfigError
from dfkdata.records import Fault

SPLITS = ("train", "validation", "test")
NAMES = {
    **{name: name for name in SPLITS},
    **{name: "train" for name in ("training", "latih")},
    **{name: "validation" for name in ("val", "valid", "dev", "eval", "restval")},
    **{name: "test" for name in ("testing", "uji")},
}
"""What sources call their splits -> our name. Karpathy's caption splits call held-back training rows
`restval`."""


class ByHash:
    """The split of a group. validation, test: shares in [0, 1), their sum below 1."""

    def __init__(self, seed: int, validation: float, test: float) -> None:
        if min(validation, test) < 0 or validation + test >= 1:
            reason = f"validation={validation} and test={test} leave no training rows"
            raise ConfigError(f"{reason}; give shares from 0 whose sum is below 1")
        self._key = f"{seed}\x1f"
        self._test, self._held = round(test * 2**64), round((test + validation) * 2**64)

    def __call__(self, group: str) -> str:
        place = int.from_bytes(sha256((self._key + group).encode("utf-8", "surrogatepass")).digest()[:8])
        if place >= self._held:
            return "train"
        return "test" if place < self._test else "validation"


def named(value: object, column: str) -> str:
    """Our name for the split that a source's column says. Raises `Fault` for any other text."""
    name = NAMES.get(value.strip().lower()) if isinstance(value, str) else None
    if name is None:
        hint = f"write one of {', '.join(sorted(NAMES))}"
        raise Fault("SPLIT_UNKNOWN", f"{column} names no split", path=column, value=value, hint=hint)
    return name
