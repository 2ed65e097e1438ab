"""Accept an answer whose grounded texts the source supports, by the rule of the metric `grounding`."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from dfkdata import schemas
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Grounded
from dfkdata.validation import grounding
from dfkdata.validation.morphology import Language
from dfkeval.types import Sample
from dfkeval.validators import Validator


class Options(Config):
    """Options of the validator.

    Attributes:
        schema_name: The schema (key `schema`) whose fields with the role `Grounded` are looked at.
        minimum: The smallest share of supported texts; 1.0 wants all.
        empty: Whether an answer that says nothing is accepted.
        language: Whose word forms count, "en" or "id".
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_name: str | None = Field(default=None, alias="schema")
    minimum: float = Field(default=1.0, ge=0.0, le=1.0)
    empty: bool = False
    language: Language = "en"


def start(options: Options) -> Validator:
    """Return a validator that compares answers with the source text.

    Raises:
        ConfigError: If no schema is named, or it has no grounded field.
    """
    if options.schema_name is None:
        raise ConfigError("validator grounding: name the schema of the answers, for example schema: caption")
    schema = schemas.load(options.schema_name)
    if not any(isinstance(role, Grounded) for role in schema.roles.values()):
        raise ConfigError(f"validator grounding: schema {schema.name!r} has no field with the role Grounded")

    def validate(sample: Sample) -> str | None:
        if sample.lenient is None:
            return f"no answer to ground ({sample.outcome})"
        if sample.source_text is None:
            return "the row has no source text"
        rate = grounding.rate(sample.lenient, sample.source_text, schema, options.language)
        if rate.value is None:
            return None if options.empty else "the answer says nothing"
        if rate.value >= options.minimum:
            return None
        return f"{rate.missing[0]!r} is not in the source ({rate.value:.2f})"

    return validate
