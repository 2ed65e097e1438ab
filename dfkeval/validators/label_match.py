"""Accepts an answer that gives the gold's label."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """field: name of the label in the answer."""

    field: str = "label"


def start(options: Options) -> Validator:
    """A judge of one field; both sides are canonical already."""
    field = options.field

    def judge(sample: Sample) -> str | None:
        gold = (sample.gold or {}).get(field)
        said = (sample.lenient or {}).get(field)
        if gold is None:
            return f"the row has no gold {field!r}"
        if said is None:
            return f"the answer has no {field!r} ({sample.outcome})"
        return None if said == gold else f"{said!r} where the gold is {gold!r}"

    return judge
