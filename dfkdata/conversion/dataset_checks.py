"""The rules that look beyond one row, or that only work when asked for: length, grounding, one post with two
labels, classes and splits that are too small."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from dfkdata.conversion.counts import LabelCounts
from dfkdata.conversion.duplicates import DigestSet
from dfkdata.conversion.first_rows import FirstRows
from dfkdata.conversion.options import ConvertOptions
from dfkdata.rows.messages import before_answer
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Schema
from dfkdata.validation import token_count
from dfkdata.validation.rules import RULES, RowReport, RuleReporter, load_row_rule

_RECOMMENDED = range(100, 100_001)


class DatasetChecks:
    """Check each row before it is written, and the counts at the end.

    Attributes:
        needs_rows: Whether any rule of this conversion looks at single rows.
    """

    def __init__(
        self, options: ConvertOptions, labels: LabelCounts, rules: RuleReporter, schema: Schema | None
    ) -> None:
        self._options, self._labels, self._rules, self._schema = options, labels, rules, schema
        self._tokens = token_count.counter(options.tokenizer) if options.tokenizer else None
        self._posts, self._labelled = DigestSet(), DigestSet()
        self._first = FirstRows()
        self._own = [load_row_rule(code).check for code in options.rules or {} if code not in RULES]
        self.needs_rows = bool(
            labels.names or options.tokenizer or options.grounding is not None or self._own
        )

    def check_row(
        self, row: dict[str, Any], record: Record, pictures: list[bytes] | None, report: RowReport
    ) -> None:
        """Check a finished row.

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
        if record.gold is not None and self._labels.names:
            self._check_labels(row, record, pictures, report)
        for check in self._own:
            try:
                check(row)
            except RowError as error:
                report(error)

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
                hint = "see the counts: its file is empty, or its rows were left out or rejected"
                self._warn("SPLIT_EMPTY", f"no row of the {name} file is there", hint)

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

    def _check_labels(
        self, row: dict[str, Any], record: Record, pictures: list[bytes] | None, report: RowReport
    ) -> None:
        """Report a post that an earlier row has with another label: the same prompt, or the same link."""
        gold = record.gold or {}
        names = [name for name in self._labels.names if name in gold]
        if not names:
            return
        prompt = msgspec.json.encode(before_answer(row["messages"]))
        labels = msgspec.json.encode([gold[name] for name in names])
        posts = {"asks the same": b"".join((prompt, *(pictures or ())))}
        if record.group and record.group != record.id:
            posts["is of the same post"] = b"\x1f" + record.group.encode("utf-8", "surrogatepass")
        new, contradicted, first = list[int](), "", 0
        for how, post in posts.items():
            digest = sha256(post).digest()
            key, labelled = int.from_bytes(digest[:8]), int.from_bytes(sha256(digest + labels).digest()[:8])
            is_new = self._labelled.put(labelled, 0) is None
            if self._posts.put(key, 0) is None:
                new.append(key)
            elif is_new and not contradicted:
                contradicted, first = how, key
        self._first.add(record.source, *new)
        if contradicted:
            reason, partner = f"an earlier row {contradicted} and has another label", self._first.find(first)
            hint = "decide which label is right"
            report(RowError("TWO_LABELS", reason, path=names[0], hint=hint, partner=partner))
