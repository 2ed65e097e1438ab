"""FAMILY: validators, one a file, each a reason to keep or to reject an answer.

A member has options and a function that makes the validator from them:

    class Options(dfkdata.common.config.Config)    every field has a default, unless only the user can know it
    start(options) -> Validator                    raises `ConfigError` before any answer is checked

    Validator = Callable[[Sample], str | None]     None accepts; else the reason of rejection, one line

This is a whole member; saved as `short_enough.py` it is used as `{short_enough: {most: 200}}`:

    >>> from dfkdata.common.config import Config
    >>> class Options(Config):
    ...     most: int = 100
    >>> def start(options):
    ...     def validate(sample):
    ...         size = len(sample.text)
    ...         return None if size <= options.most else f"{size} characters are more than {options.most}"
    ...     return validate

A member whose `Options` have a field `schema_name` (alias `schema`) is given the schema of the run if the user names
none. Labelling (`dfkeval label`) and rejection sampling (`dfktrain rft`) use validators by name.

Guarantees that every member keeps:

- It is pure: the same sample gives the same result, whatever came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dfkdata.common import plugins
from dfkdata.common.config import bind
from dfkeval.types import Sample

__all__ = ["Validator", "build"]

FAMILY = "dfkeval.validators"
#: Names that every member defines.
REQUIRED = ("Options", "start")

Validator = Callable[[Sample], str | None]


def build(options_by_name: Mapping[str, Mapping[str, Any]], schema: str | None = None) -> Validator:
    """Combine several validators into one; the first rejection counts.

    Args:
        options_by_name: Name of a member -> its options.
        schema: Name of the run's schema, for members that need one and are given none.

    Returns:
        A validator whose reasons begin with the name of the member.

    Raises:
        ConfigError: A name or an option is unknown, or a member cannot start.

    Example:
        >>> from dfkeval.types import Sample
        >>> from dfkeval.validators import build
        >>> validate = build({"schema_valid": {}})
        >>> sample = {"id": "1", "group": "1", "gold": None, "value": None, "lenient": None, "text": ""}
        >>> validate(Sample(outcome="empty", **sample))
        'schema_valid: empty'
        >>> validate(Sample(outcome="ok", **sample)) is None
        True
    """
    validators = {name: _start(name, options, schema) for name, options in options_by_name.items()}

    def validate(sample: Sample) -> str | None:
        for name, validator in validators.items():
            reason = validator(sample)
            if reason is not None:
                return f"{name}: {reason}"
        return None

    return validate


def _start(name: str, options: Mapping[str, Any], schema: str | None) -> Validator:
    module = plugins.load(FAMILY, name)
    values = dict(options)
    if "schema_name" in module.Options.model_fields and schema is not None:
        values = {"schema": schema} | values
    validator: Validator = module.start(bind(values, module.Options, f"validator {name}"))
    return validator
