"""What is asked of a conversion and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion
from dfkdata.validation.rules import RULES, Policy


class ConvertOptions(Config):
    """Everything that decides the rows of a conversion; it stands in the manifest. Where files lie is no part
    of it."""

    format: str
    to: str = "messages"
    schema_name: str | None = None
    variant: str | None = None
    seed: int = 42
    validation: float = 0.1
    test: float = 0.0
    group_by: str | None = None
    split_column: str | None = None
    stratify: str | None = None
    split: Literal["hash", "sita"] = "hash"
    max_samples: int | None = Field(default=None, gt=0)
    subsample: float = Field(default=1.0, gt=0, le=1)
    nulls: Literal["omit", "keep"] = "omit"
    where: list[str] = Field(default_factory=list)
    limit: int | None = Field(default=None, ge=0)
    sample: bool = False
    hub_config: str | None = None
    hub_split: str | None = None
    materialize: Literal["link", "copy", "embed"] = "link"
    deep: bool = False
    tokenizer: str | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    balance: bool = False
    grounding: float | None = Field(default=None, ge=0, le=1)
    grounding_language: Literal["en", "id"] = "en"
    rules: dict[str, Policy] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> ConvertOptions:
        sita = self.split == "sita"
        if sita and (self.test or self.split_column or self.stratify):
            raise ValueError(
                "split=sita makes training and validation only, by share; leave the other split options out"
            )
        if not sita and (self.max_samples is not None or self.subsample != 1.0):
            raise ValueError("max_samples and subsample belong to split=sita; use limit and sample")
        if self.stratify and self.split_column:
            raise ValueError("stratify and split_column both divide the rows; give one of them")
        if self.sample and self.limit is None:
            raise ValueError("sample needs limit, the number of rows")
        if (self.tokenizer is None) != (self.max_tokens is None):
            raise ValueError("tokenizer and max_tokens belong together")
        return self

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, rules: dict[str, Policy]) -> dict[str, Policy]:
        for code, policy in rules.items():
            rule = RULES.get(code)
            if rule is None:
                raise ValueError(f"no rule {code!r}{suggestion(code, list(RULES))}")
            if policy not in rule.policies:
                raise ValueError(f"{code} cannot be {policy!r}; it can be {', '.join(rule.policies)}")
        return rules


@dataclass(frozen=True)
class Summary:
    """What a conversion did. rows: in, out, quarantined, duplicates, left_out. splits: rows in each file.

    codes: rule -> {"count", "first": {"source", "reason", "path", "excerpt", "hint"}}; warnings: the same for
    rules that let a row through. too_many: more rejects than `max_rejects` allows. fresh: False when nothing
    was to do."""

    folder: Path
    rows: dict[str, int]
    splits: dict[str, int]
    codes: dict[str, dict[str, Any]]
    warnings: dict[str, dict[str, Any]]
    too_many: bool
    fresh: bool


def reject_limit(text: str | int) -> Callable[[int], float]:
    """ "2%" or "5" -> how many rejects n rows may have. Raises `ConfigError` for anything else."""
    written = str(text).strip()
    number = written.removesuffix("%")
    try:
        value = float(number) if written.endswith("%") else int(number)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(f"--max-rejects {text!r}: write a share such as 2% or a count such as 5")
    return (lambda n: n * value / 100) if written.endswith("%") else (lambda n: value)
