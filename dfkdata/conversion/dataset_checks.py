"""The rules that look beyond one row, or that only work when asked for: length, grounding, one post with two
labels, classes and splits that are too small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dfkdata.conversion.counts import LabelCounts
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.post_labels import Contradictions, PostKeys, PostLabels, post_keys
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Schema
from dfkdata.validation import token_count
from dfkdata.validation.rules import RULES, RowReport, RuleReporter, load_row_rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RECOMMENDED = range(100, 100_001)


class DatasetChecks:
    """Check each row before it is written, and the counts at the end.

    Attributes:
        needs_rows: Whether any rule of this conversion looks at single rows.
        rejects_two_labels: Whether rows of a post with two labels are rejected, not told at the end.
        contradictions: These posts, once a first pass has found them.
    """

    def __init__(
        self, options: ConvertOptions, labels: LabelCounts, rules: RuleReporter, schema: Schema | None
    ) -> None:
        self._options, self._labels, self._rules, self._schema = options, labels, rules, schema
        self._tokens = token_count.counter(options.tokenizer) if options.tokenizer else None
        self._posts = PostLabels()
        self.contradictions: Contradictions | None = None
        self._own = [load_row_rule(code).check for code in options.rules or {} if code not in RULES]
        self._watches_posts = bool(labels.names) and rules.policy("TWO_LABELS") != "off"
        self.rejects_two_labels = self._watches_posts and rules.policy("TWO_LABELS") == "quarantine"
        self.needs_rows = bool(
            self._watches_posts or options.tokenizer or options.grounding is not None or self._own
        )

    def check_row(
        self, row: dict[str, Any], record: Record, pictures: list[bytes] | None, report: RowReport
    ) -> PostKeys | None:
        """Check a finished row, and return what tells its post and its labels, if it has any.

        Args:
            row: The row in the messages layout.
            record: The record behind it.
            pictures: What identifies its files; None without files.
            report: Reports the rules that it breaks.

        Raises:
            RowError: A broken rule whose policy is "quarantine".
        """
        if self._tokens is not None:
            self._check_length(self._tokens(row), report)
        if record.gold is not None and self._options.grounding is not None:
            self._check_grounding(record, record.gold, self._options.grounding, report)
        for check in self._own:
            try:
                check(row)
            except RowError as error:
                report(error)
        if not self._watches_posts or record.gold is None:
            return None
        keys = post_keys(row, record, pictures, self._labels.names)
        if keys is not None and self.contradictions is not None:
            contradiction = self.contradictions.error(keys, self._labels.names[0])
            if contradiction is not None:
                raise contradiction
        return keys

    def check_all(self, written: dict[str, int], out: int, fixed_splits: set[str]) -> None:
        """Check all rows together.

        Args:
            written: Split -> rows in its file.
            out: Number of rows in all of them.
            fixed_splits: Splits that come from files of their own.
        """
        for sentence in self._labels.rare():
            self._warn("CLASS_RARE", sentence)
        train = written["train"]
        if self._options.to == "swift" and train not in _RECOMMENDED:
            self._warn("SIZE_RECOMMENDED", f"{train} training rows; 100 to 100,000 are recommended")
        if not train:
            hint = "see the counts: no rows came in, or they were rejected, left out or all held out"
            self._warn("SPLIT_EMPTY", "no row fell into train", hint)
        for name, share in (("validation", self._options.validation), ("test", self._options.test)):
            if share and out and not written.get(name):
                hint = "few groups: give a larger share, another --seed, or --stratify"
                self._warn("SPLIT_EMPTY", f"no row fell into {name}", hint)
            if name in fixed_splits and not written.get(name):
                hint = "see the counts: its input is empty, or its rows were left out or rejected"
                self._warn("SPLIT_EMPTY", f"no row of the input for {name} was written", hint)

    def _warn(self, code: str, reason: str, hint: str = "") -> None:
        self._rules.report(RowError(code, reason, hint=hint), "all rows")

    def _check_length(self, length: int, report: RowReport) -> None:
        if self._options.max_tokens is not None and length > self._options.max_tokens:
            reason = f"{length} text tokens, the limit is {self._options.max_tokens}"
            report(RowError("TOO_LONG", reason, path="messages", hint="shorten it or raise --max-tokens"))

    def _check_grounding(self, record: Record, gold: dict[str, Any], least: float, report: RowReport) -> None:
        if self._schema is None:
            return
        from dfkdata.validation import grounding  # most conversions ground nothing

        source = str(record.meta.get("text") or "\n".join(record.fields.values()))
        support = grounding.rate(gold, source, self._schema, self._options.grounding_language)
        if support.value is None:
            hint = "write what the text says, or drop the row"
            report(
                RowError(
                    "GROUNDING_EMPTY",
                    "the answer says nothing that could be grounded",
                    path="gold",
                    hint=hint,
                )
            )
        elif support.value < least:
            reason = f"{support.supported} of {support.texts} texts are in the source"
            hint = f"not in the source: {', '.join(support.missing[:5])}"
            report(RowError("NOT_GROUNDED", reason, path="gold", value=source, hint=hint))

    def add_row(self, number: int, source: str, keys: PostKeys | None) -> None:
        """Take a row that was written.

        Args:
            number: Its number among the rows that are written.
            source: "file:line" of its raw row.
            keys: What `check_row` returned.
        """
        if keys is not None and not self.rejects_two_labels:
            self._posts.add(number, source, keys)

    def check_posts(self, gone: NDArray[Any] | None) -> None:
        """Report every row whose post has two labels among the rows that are still there.

        Args:
            gone: Of each row that was written, whether it left its file again; None if none did.
        """
        if not self._watches_posts or self.rejects_two_labels:
            return
        for source, error in self._posts.contradicted(self._labels.names[0], gone):
            self._rules.report(error, source)
