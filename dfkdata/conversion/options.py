"""Options and result of a conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SkipValidation, field_validator, model_validator

from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.sources import Input
from dfkdata.validation.rules import Policy, rule_of


class ConvertOptions(Config):
    """Everything that can be asked of a conversion; `convert` takes these fields as keywords.

    The manifest records the fields that decide the rows. Fields that say where files lie, or what to do about
    the result, are excluded from it."""

    format: str = Field(description="Raw format of the input, or auto.")
    to: str = Field(default="messages", description="Training layout to write.")
    schema_name: str | None = Field(
        default=None, alias="schema", description="Output schema; default: the format's own."
    )
    variant: str | None = Field(default=None, description="Variant of the schema.")
    labels: Annotated[str | Path | dict[Any, Any] | None, SkipValidation] = Field(
        default=None,
        description="YAML file: spelling -> label; or the target's spelling is the source's: raw, raw-lower.",
    )
    question: str | None = Field(
        default=None, description="The question of rows that have none, such as pictures with their labels."
    )
    images: str | Path | None = Field(
        default=None, exclude=True, description="Folder where image names start; default: the input's."
    )
    delimiter: str | None = Field(
        default=None, description="Sign between the cells of CSV files, or tab; default: recognised."
    )
    encoding: str | None = Field(
        default=None, description="Encoding of CSV files, such as windows-1252; default: recognised."
    )
    sheet: str | None = Field(
        default=None, description="Sheet of .xlsx files, by name or number; needed where several hold rows."
    )
    header_row: int | None = Field(
        default=None,
        ge=1,
        description="Line of CSV files, or row of a sheet, that names the columns; default: the first.",
    )
    seed: int = Field(default=42, description="Seed of split and sample.")
    max_rejects: str | int = Field(
        default="0%", exclude=True, description="Exit 1 above this share (2%) or count (5)."
    )
    keep_empty: bool = Field(
        default=False,
        exclude=True,
        description="Leave the folder, with the rejected rows, even if no row could be used.",
    )
    validation: float = Field(default=0.1, description="Share of groups held out.")
    test: float = Field(default=0.0, description="Share of groups held out for the test.")
    group_by: str | None = Field(
        default=None, description="Field (dotted) whose value keeps rows in one split."
    )
    split_column: str | None = Field(default=None, description="Field that names each row's split.")
    validation_file: Annotated[Input | None, SkipValidation] = Field(
        default=None, exclude=True, description="Validation rows."
    )
    test_file: Annotated[Input | None, SkipValidation] = Field(
        default=None, exclude=True, description="Test rows."
    )
    stratify: str | None = Field(
        default=None, description="Field whose values have the same shares in every split."
    )
    split: Literal["hash", "sita"] = Field(
        default="hash", description="How to split; sita repeats that framework's shuffle."
    )
    max_samples: int | None = Field(default=None, gt=0, description="Cap of --split sita.")
    subsample: float = Field(default=1.0, gt=0, le=1, description="Share of each label, of --split sita.")
    nulls: Literal["omit", "keep"] = Field(default="omit", description="Null slots in tool-call targets.")
    where: list[str] | None = Field(default=None, description="FIELD=VALUE or FIELD!=VALUE.")
    limit: int | None = Field(default=None, ge=0, description="Only that many rows.")
    sample: bool = Field(default=False, description="Choose the --limit rows at random.")
    hub_config: str | None = Field(default=None, description="Config of a hub data set.")
    hub_split: str | None = Field(default=None, description="Split of a hub data set.")
    materialize: Literal["link", "copy", "embed"] = Field(
        default="link", description="Write the images' paths, copy the files, or embed them in the rows."
    )
    paths: Literal["relative", "absolute"] = Field(
        default="relative", description="Write media paths as seen from the rows' file, or from everywhere."
    )
    deep: bool = Field(
        default=False, description="Decode every picture; look for near duplicates across splits."
    )
    tokenizer: str | None = Field(default=None, description="tokenizer.json for --max-tokens.")
    max_tokens: int | None = Field(default=None, gt=0, description="Text tokens that a row may have.")
    balance: bool = Field(default=False, description="Class weights into the manifest.")
    grounding: float | None = Field(
        default=None, ge=0, le=1, description="Share of an answer that its text must support."
    )
    grounding_language: Literal["en", "id"] = Field(
        default="en", description="Language of the texts that answers are grounded in."
    )
    rules: dict[str, Policy] | None = Field(default=None, description="CODE=quarantine|warn|fix|off.")
    options: dict[str, Any] | None = Field(default=None, description="KEY=VALUE, an option of the format.")
    overwrite: bool = Field(
        default=False, exclude=True, description="Replace another conversion in the output folder."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        exclude=True,
        description="Convert shard by shard in so many processes; goes on after a kill, same files.",
    )
    progress: Annotated[Callable[[int], None] | None, SkipValidation] = Field(
        default=None, exclude=True, description="Called with the number of rows read, from time to time."
    )

    @property
    def has_split_files(self) -> bool:
        """Whether files of their own hold the validation or test rows."""
        return self.validation_file is not None or self.test_file is not None

    @model_validator(mode="after")
    def _agree(self) -> ConvertOptions:
        sita = self.split == "sita"
        if self.has_split_files and self.split_column:
            raise ValueError(
                "--split-column and --validation-file/--test-file both fix the split; give one of them"
            )
        shares = (self.validation, self.test) if not self.has_split_files else (0.0, 0.0)
        if sita and (shares[1] or self.split_column or self.stratify or self.test_file is not None):
            raise ValueError(
                "split=sita makes training and validation only, by share or from a validation file; "
                "leave the other split options out"
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

    @field_validator("where", "options")
    @classmethod
    def _none_if_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, rules: dict[str, Policy] | None) -> dict[str, Policy] | None:
        for code, policy in (rules or {}).items():
            rule = rule_of(code)
            if policy not in rule.policies:
                raise ValueError(f"{code} cannot be {policy!r}; it can be {', '.join(rule.policies)}")
        return rules or None


@dataclass(frozen=True)
class Summary:
    """Hold what a conversion did.

    Attributes:
        folder: The output folder.
        rows: Number of rows: in, out, quarantined, duplicates, left_out.
        splits: Number of rows in each split's file.
        codes: Rule -> {"count", "first": {"source", "reason", "path", "excerpt", "hint"}} of rejected rows.
        warnings: The same for rules that let a row through.
        too_many: Whether there are more rejects than `max_rejects` allows.
        fresh: False if the folder held exactly this conversion already, so that nothing was to do.
        detected: The format that `auto` found, and why; empty if the user named it.
        unread: Columns of the first rows that nothing reads.

    Example:
        >>> import tempfile
        >>> from dfkdata import convert
        >>> rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia."}]
        >>> summary = convert(rows, tempfile.mkdtemp() + "/out", format="alpaca", validation=0)
        >>> summary.rows["out"], summary.splits, summary.too_many
        (1, {'train': 1, 'validation': 0}, False)
    """

    folder: Path
    rows: dict[str, int]
    splits: dict[str, int]
    codes: dict[str, dict[str, Any]]
    warnings: dict[str, dict[str, Any]]
    too_many: bool
    fresh: bool
    detected: str = ""
    unread: tuple[str, ...] = ()


def reject_limit(text: str | int) -> Callable[[int], float]:
    """Return a function: number of rows -> how many of them may be rejected, by "2%" or "5".

    Raises:
        ConfigError: `text` is neither a share nor a count.
    """
    written = str(text).strip()
    number = written.removesuffix("%")
    try:
        value = float(number) if written.endswith("%") else int(number)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigError(f"--max-rejects {text!r}: write a share such as 2% or a count such as 5")
    return (lambda rows: rows * value / 100) if written.endswith("%") else (lambda rows: value)
