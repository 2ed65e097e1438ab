"""Accept an answer that fits its schema, as it stands or, if allowed, after named repairs."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """Options of the validator.

    Attributes:
        lenient: Whether repaired answers are accepted too.
    """

    lenient: bool = False


def start(options: Options) -> Validator:
    """Return a validator that looks at the outcome alone."""
    accepted = {"ok", "repaired"} if options.lenient else {"ok"}

    def validate(sample: Sample) -> str | None:
        if sample.outcome in accepted:
            return None
        return f"{sample.outcome}: {sample.problems[0]}" if sample.problems else sample.outcome

    return validate
