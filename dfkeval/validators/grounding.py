"""Accepts an answer whose grounded texts the source supports, in the sense of the metric `grounding`: content
words in the source's order, close together, singular or plural."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from dfkdata import schemas
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkeval.metrics._words import bases
from dfkeval.metrics.grounding import grounded_texts, supported
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """schema: whose fields with the role Grounded are looked at. minimum: smallest share of supported texts;
    1.0 wants all. empty: also take an answer that says nothing."""

    model_config = ConfigDict(populate_by_name=True)

    schema_name: str | None = Field(default=None, alias="schema")
    minimum: float = Field(default=1.0, ge=0.0, le=1.0)
    empty: bool = False


def start(options: Options) -> Validator:
    """A judge over the source text. Raises `ConfigError` for a schema without grounded fields."""
    if options.schema_name is None:
        raise ConfigError("validator grounding: say whose answers it judges, for example schema: caption")
    schema = schemas.load(options.schema_name)
    if not list(grounded_texts({name: ["x"] for name in schema.roles}, schema)):
        raise ConfigError(f"validator grounding: schema {schema.name!r} has no field with the role Grounded")

    def judge(sample: Sample) -> str | None:
        if sample.lenient is None:
            return f"no answer to ground ({sample.outcome})"
        if sample.source_text is None:
            return "the row has no source text"
        texts = list(grounded_texts(sample.lenient, schema))
        if not texts:
            return None if options.empty else "the answer says nothing"
        source = bases(sample.source_text)
        missing = [text for text in texts if not supported(text, source)]
        share = 1 - len(missing) / len(texts)
        return None if share >= options.minimum else f"{missing[0]!r} is not in the source ({share:.2f})"

    return judge
