"""Accept an answer that gives the gold's label."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """Options of the validator.

    Attributes:
        field: Name of the label in the answer.
    """

    field: str = "label"


def start(options: Options) -> Validator:
    """Return a validator that compares one field of answer and gold; both are canonical already."""
    field = options.field

    def validate(sample: Sample) -> str | None:
        gold = (sample.gold or {}).get(field)
        answered = (sample.lenient or {}).get(field)
        if gold is None:
            return f"the row has no gold {field!r}"
        if answered is None:
            return f"the answer has no {field!r} ({sample.outcome})"
        return None if answered == gold else f"{answered!r} where the gold is {gold!r}"

    return validate
