"""Accepts an answer that its schema takes, as it stands or, if allowed, after named repairs."""

from __future__ import annotations

from dfkdata.common.config import Config
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """lenient: take repaired answers too."""

    lenient: bool = False


def start(options: Options) -> Validator:
    """A judge of the outcome alone."""
    accepted = {"ok", "repaired"} if options.lenient else {"ok"}

    def judge(sample: Sample) -> str | None:
        if sample.outcome in accepted:
            return None
        return f"{sample.outcome}: {sample.problems[0]}" if sample.problems else sample.outcome

    return judge
