"""FAMILY: one reason to keep or to reject an answer a file.

A member says what it may be told and gives a judge:

    class Options(dfkdata.common.config.Config)       every field has a default, but what only the user can know
    start(options) -> Validator                raises `ConfigError` before anything is judged

    Validator = Callable[[Sample], str | None]     None accepts; else the reason of rejection, one line

A member whose `Options` have a field `schema_name` (alias `schema`) is given the schema of the run where the
user names none. Validators are pure: the same sample gives the same verdict, whatever came before. Labelling
(`dfkeval label`) and rejection sampling (`dfktrain rft`) use them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dfkdata.common import plugins
from dfkdata.common.config import bind
from dfkeval.types import Sample

FAMILY = "dfkeval.validators"

Validator = Callable[[Sample], str | None]


def build(wanted: Mapping[str, Mapping[str, Any]], schema: str | None = None) -> Validator:
    """One judge out of several: the first rejection counts, its reason behind the member's name.

    wanted: member name -> its options. schema: name of the run's schema. Raises `ConfigError` for an unknown
    name or option."""
    judges = {name: _start(name, options, schema) for name, options in wanted.items()}

    def judge(sample: Sample) -> str | None:
        for name, validator in judges.items():
            reason = validator(sample)
            if reason is not None:
                return f"{name}: {reason}"
        return None

    return judge


def _start(name: str, options: Mapping[str, Any], schema: str | None) -> Validator:
    module = plugins.load(FAMILY, name)
    given = dict(options)
    if "schema_name" in module.Options.model_fields and schema is not None:
        given = {"schema": schema} | given
    validator: Validator = module.start(bind(given, module.Options, f"validator {name}"))
    return validator
