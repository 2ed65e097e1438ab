"""The rules that look beyond one row, or that only work when asked for: length, one post with two labels,
classes and splits that are too small."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from dfkdata.conversion import decode_pool
from dfkdata.conversion.counts import LabelCounts
from dfkdata.conversion.digest_set import DigestSet
from dfkdata.conversion.options import ConvertOptions
from dfkdata.rows.prompt import before_answer
from dfkdata.rows.record import Record, RowError
from dfkdata.schemas import Schema
from dfkdata.validation import grounding, token_count
from dfkdata.validation.rules import RuleReporter

_RECOMMENDED = range(100, 100_001)


class DatasetChecks:
    """Sees each row once before it is written, and the counts at the end. busy: whether rows need be shown to
    it."""

    def __init__(
        self, plan: ConvertOptions, labels: LabelCounts, report: RuleReporter, schema: Schema | None
    ) -> None:
        self.schema = schema
        self.plan, self.labels, self.report = plan, labels, report
        self.decoder = decode_pool.ImageDecodePool() if plan.deep else None
        self._tokens = token_count.counter(plan.tokenizer) if plan.tokenizer else None
        self._posts, self._labelled = DigestSet(), DigestSet()
        self.busy = bool(labels.names or plan.tokenizer or plan.grounding is not None)

    def row(self, row: dict[str, Any], record: Record, pictures: list[bytes] | None) -> None:
        """Look at a finished row. Raises `RowError` where a rule says so."""
        if self._tokens is not None:
            self._length(self._tokens(row))
        if record.gold is not None and self.plan.grounding is not None:
            self._grounded(record, record.gold, self.plan.grounding)
        if record.gold is not None and self.labels.names:
            self._two_labels(row, record, pictures)

    def close(self) -> None:
        """End the processes that decode."""
        if self.decoder is not None:
            self.decoder.close()

    def whole(self, written: dict[str, int], out: int, files: set[str | None]) -> None:
        """The rules about all rows together. written: rows in each split's file. files: sides that files of
        their own fix."""
        self.report.source = "all rows"
        for sentence in self.labels.rare():
            self.report(RowError("CLASS_RARE", sentence))
        train = written["train"]
        if self.plan.to == "swift" and train not in _RECOMMENDED:
            self.report(
                RowError("SIZE_RECOMMENDED", f"{train} training rows; 100 to 100,000 are recommended")
            )
        if not train:
            hint = "see the counts: no rows came in, or they were rejected, left out or all held out"
            self.report(RowError("SPLIT_EMPTY", "no row fell into train", hint=hint))
        for name, share in (("validation", self.plan.validation), ("test", self.plan.test)):
            if share and out and not written.get(name):
                hint = "few groups: give a larger share, another --seed, or --stratify"
                self.report(RowError("SPLIT_EMPTY", f"no row fell into {name}", hint=hint))
            if name in files and not written.get(name):
                hint = "see the counts: its file is empty, or its rows were left out or rejected"
                self.report(RowError("SPLIT_EMPTY", f"no row of the {name} file is there", hint=hint))

    def _length(self, length: int) -> None:
        if self.plan.max_tokens is not None and length > self.plan.max_tokens:
            reason = f"{length} text tokens, the limit is {self.plan.max_tokens}"
            self.report(
                RowError("TOO_LONG", reason, path="messages", hint="shorten it or raise --max-tokens")
            )

    def _grounded(self, record: Record, gold: dict[str, Any], wanted: float) -> None:
        if self.schema is None:
            return
        source = str(record.meta.get("text") or "\n".join(record.fields.values()))
        found = grounding.rate(gold, source, self.schema, self.plan.grounding_language)
        if found.value is None:
            hint = "write what the text says, or drop the row"
            self.report(
                RowError(
                    "GROUNDING_EMPTY",
                    "the answer says nothing that could be grounded",
                    path="gold",
                    hint=hint,
                )
            )
        elif found.value < wanted:
            reason = f"{found.supported} of {found.texts} texts are in the source"
            hint = f"not in the source: {', '.join(found.missing[:5])}"
            self.report(RowError("NOT_GROUNDED", reason, path="gold", value=source, hint=hint))

    def _two_labels(self, row: dict[str, Any], record: Record, pictures: list[bytes] | None) -> None:
        """Hear of a post that an earlier row had with another label: the same prompt, or the same link."""
        gold = record.gold or {}
        names = [name for name in self.labels.names if name in gold]
        if not names:
            return
        prompt = msgspec.json.encode(before_answer(row["messages"]))
        labels = msgspec.json.encode([gold[name] for name in names])
        posts = {"asks the same": b"".join((prompt, *(pictures or ())))}
        if record.group and record.group != record.id:
            posts["is of the same post"] = b"\x1f" + record.group.encode("utf-8", "surrogatepass")
        keys = {how: sha256(post).digest() for how, post in posts.items()}
        contradicted = [how for how, post in keys.items() if self._contradicts(post, labels)]
        if contradicted:
            reason = f"an earlier row {contradicted[0]} and has another label"
            self.report(RowError("TWO_LABELS", reason, path=names[0], hint="decide which label is right"))

    def _contradicts(self, post: bytes, labels: bytes) -> bool:
        """Whether the post was seen, and never with these labels."""
        labelled = sha256(post + labels).digest()
        known = self._posts.put(int.from_bytes(post[:8]), 0) is not None
        return self._labelled.put(int.from_bytes(labelled[:8]), 0) is None and known
