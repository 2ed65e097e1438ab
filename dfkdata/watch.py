"""The rules that look beyond one row, or that only work when asked for: length, one post with two labels,
near duplicates across splits, classes and splits that are too small."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from dfkdata import deep, grounding, tokens
from dfkdata.checks import Judge
from dfkdata.dedup import Seen
from dfkdata.plan import Plan
from dfkdata.records import Fault, Record
from dfkdata.rows import before_answer
from dfkdata.schemas import Schema
from dfkdata.tally import Labels

_RECOMMENDED = range(100, 100_001)


class Watch:
    """Sees each row once before it is written, and the counts at the end. busy: whether rows need be shown to
    it."""

    def __init__(self, plan: Plan, labels: Labels, judge: Judge, schema: Schema | None) -> None:
        self.schema = schema
        self.plan, self.labels, self.judge = plan, labels, judge
        self.decoder = deep.Decoder() if plan.deep else None
        self._tokens = tokens.counter(plan.tokenizer) if plan.tokenizer else None
        self._near_texts, self._near_images = deep.NearTexts(), deep.Near()
        self._posts, self._labelled = Seen(), Seen()
        self._asked = ""
        self.overlap: dict[str, int] = {}
        self.busy = bool(labels.names or plan.deep or plan.tokenizer or plan.grounding is not None)

    def row(self, row: dict[str, Any], record: Record, pictures: list[bytes] | None) -> None:
        """Look at a finished row. Raises `Fault` where a rule says so."""
        if self._tokens is not None:
            self._length(self._tokens(row))
        if record.gold is not None and self.plan.grounding is not None:
            self._grounded(record, record.gold, self.plan.grounding)
        if record.gold is not None and self.labels.names:
            self._two_labels(row, record.gold, pictures)
        if self.decoder is not None:
            self._asked = deep.asked(row)

    def written(self, side: str) -> None:
        """The row was written to `side`: keep its hashes for the comparison across splits."""
        if self.decoder is None:
            return
        for look in self.decoder.looks:
            self._near_images.add(look, side)
        self._near_texts.add(deep.text_look(self._asked), side)

    def close(self) -> None:
        """End the processes that decode."""
        if self.decoder is not None:
            self.decoder.close()

    def whole(self, written: dict[str, int], out: int) -> None:
        """The rules about all rows together. written: rows in each split's file."""
        self.judge.source = "all rows"
        for sentence in self.labels.rare():
            self.judge(Fault("CLASS_RARE", sentence))
        train = written["train"]
        if self.plan.to == "swift" and train not in _RECOMMENDED:
            self.judge(Fault("SIZE_RECOMMENDED", f"{train} training rows; 100 to 100,000 are recommended"))
        if not train:
            hint = "see the counts: no rows came in, or they were rejected, left out or all held out"
            self.judge(Fault("SPLIT_EMPTY", "no row fell into train", hint=hint))
        for name, share in (("validation", self.plan.validation), ("test", self.plan.test)):
            if share and out and not written.get(name):
                hint = "few groups: give a larger share, another --seed, or --stratify"
                self.judge(Fault("SPLIT_EMPTY", f"no row fell into {name}", hint=hint))
        self._across()

    def _across(self) -> None:
        """What training and held-out rows share; exact copies and groups cannot be shared."""
        nearly = "held-out {} are nearly the same as training ones"
        self.overlap = {"pictures": self._near_images.across(), "prompts": self._near_texts.across()}
        if number := self.overlap["pictures"]:
            self.judge(Fault("IMG_NEAR_DUPLICATE", f"{number} {nearly.format('pictures')}"))
        if number := self.overlap["prompts"]:
            self.judge(Fault("TEXT_NEAR_DUPLICATE", f"{number} {nearly.format('prompts')}"))

    def _length(self, length: int) -> None:
        if self.plan.max_tokens is not None and length > self.plan.max_tokens:
            reason = f"{length} text tokens, the limit is {self.plan.max_tokens}"
            self.judge(Fault("TOO_LONG", reason, path="messages", hint="shorten it or raise --max-tokens"))

    def _grounded(self, record: Record, gold: dict[str, Any], wanted: float) -> None:
        if self.schema is None:
            return
        source = str(record.meta.get("text") or "\n".join(record.fields.values()))
        found = grounding.rate(gold, source, self.schema, self.plan.grounding_language)
        if found.value is None:
            hint = "write what the text says, or drop the row"
            self.judge(
                Fault(
                    "GROUNDING_EMPTY",
                    "the answer says nothing that could be grounded",
                    path="gold",
                    hint=hint,
                )
            )
        elif found.value < wanted:
            reason = f"{found.supported} of {found.texts} texts are in the source"
            hint = f"not in the source: {', '.join(found.missing[:5])}"
            self.judge(Fault("NOT_GROUNDED", reason, path="gold", value=source, hint=hint))

    def _two_labels(self, row: dict[str, Any], gold: dict[str, Any], pictures: list[bytes] | None) -> None:
        """Hear of a prompt that an earlier row had with another label."""
        names = [name for name in self.labels.names if name in gold]
        prompt = msgspec.json.encode(before_answer(row["messages"]))
        post = sha256(b"".join((prompt, *(pictures or ())))).digest()
        labelled = sha256(post + msgspec.json.encode([gold[name] for name in names])).digest()
        known = self._posts.put(int.from_bytes(post[:8]), 0) is not None
        if self._labelled.put(int.from_bytes(labelled[:8]), 0) is None and known and names:
            reason, hint = "an earlier row asks the same and has another label", "decide which label is right"
            self.judge(Fault("TWO_LABELS", reason, path=names[0], hint=hint))
