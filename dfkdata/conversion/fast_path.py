"""Write rows of plain text many at once.

Nearly every row of a text data set is one question and one answer that break no rule.

How it works: such a row waits as the bytes of its turns. A few hundred are then hashed, split, looked up
among the rows before and written by loops that run in C. Any other row goes alone, after those that wait.
Little is kept of a waiting row, because objects that live longer cost Python more.

Guarantees: the bytes and their order are those of rows that go alone; little more than `_WAITING_BYTES` of
turns wait."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import compress
from typing import Any, Protocol

import msgspec

from dfkdata.conversion import selection
from dfkdata.conversion.splits import CODE, SPLITS, Splitter
from dfkdata.rows.control_tokens import may_hold_control_token
from dfkdata.rows.messages import PlainMeta, PlainRow
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation import conversation, damaged_answers

_WAITING_BYTES = 1 << 17
_Waiting = tuple[Any, str, str, bool, bytes, str, str, str]
"""raw row, source, id, keyed, turns, question, group, split; the last two are empty if the turns decide."""


class RowWriter(Protocol):
    """Say of rows whether they are to be written."""

    def takes(self, raw: Any, record: Record, row: dict[str, Any], digest: bytes, split: str) -> bool:
        """Return whether a row is to be written, and no copy of an earlier one. Raises `RowError`."""

    def takes_all(
        self,
        raws: Sequence[Any],
        sources: Sequence[str],
        names: Sequence[str],
        keys: Sequence[str] | None,
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> bool:
        """Return whether all of these rows are to be written; if not, nothing is taken and each is asked for.

        `keys` are the source's own, empty for rows without one; None if no row has one."""


class RowSink(Protocol):
    """Take the rows that the batcher hands on."""

    @property
    def writer(self) -> RowWriter:
        """Return what decides which rows are written."""

    @property
    def splitter(self) -> Splitter:
        """Return what divides groups."""

    def reject(self, reject: Reject) -> None:
        """Quarantine a row."""

    def write_plain(
        self,
        rows: Sequence[PlainRow],
        questions: Sequence[str],
        groups: Sequence[str],
        digests: Sequence[bytes],
        codes: Sequence[int],
    ) -> None:
        """Write rows of plain text, column by column. `codes`: place of each row's split in `SPLITS`."""


class PlainTextBatcher:
    """Batch the plain rows of a conversion that needs nothing which only a row alone gets."""

    def __init__(self, sink: RowSink, group_by: str | None) -> None:
        self._sink, self._group_by = sink, group_by
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[_Waiting] = []
        self._bytes = 0

    def takes(self, raw: Any, item: Record | Reject, fixed: str | None) -> bool:
        """Return whether a row is plain; then it waits and is written by the next `write` at the latest.

        Args:
            raw: The raw row.
            item: What became of it.
            fixed: The split that its input fixes.
        """
        if type(item) is not Record or item.messages is None:
            return False
        files = item.images or item.videos or item.audios
        if files or item.tools or item.chat_template_kwargs or item.warnings or item.fields or item.meta:
            return False
        question = conversation.plain_question(item.messages)
        group = item.group if self._group_by is None else selection.text(raw, self._group_by)
        if not question or item.gold is not None or group is None:
            return False
        if damaged_answers.may_be_damaged(item.messages[-1]["content"][0]["text"]):
            return False
        try:
            turns = self._encode(item.messages)
            if item.id or group or not item.source.isascii():
                self._encode((item.source, item.id, group))
        except UnicodeEncodeError:
            return False
        if may_hold_control_token(turns) or not (turns.isascii() or conversation.is_normal(turns.decode())):
            return False
        split = fixed or item.split or ""
        self._waiting.append((raw, item.source, item.id, item.keyed, turns, question, group, split))
        self._bytes += len(turns)
        if self._bytes > _WAITING_BYTES:
            self.write()
        return True

    def write(self) -> None:
        """Write the rows that wait."""
        if not self._waiting:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        raws, sources, ids, keyed, turns, questions, own_groups, fixed = zip(*waiting, strict=True)
        digests = [sha256(one).digest()[:8] for one in turns]
        names = [name or digest.hex() for name, digest in zip(ids, digests, strict=True)]
        groups = [group or name for group, name in zip(own_groups, names, strict=True)]
        by_group = fixed if all(fixed) else self._sink.splitter.many(groups)
        codes = [CODE[split or otherwise] for split, otherwise in zip(fixed, by_group, strict=True)]
        metas = map(PlainMeta, groups, sources)
        rows = [
            PlainRow(name, msgspec.Raw(one), (), meta)
            for name, one, meta in zip(names, turns, metas, strict=True)
        ]
        columns: tuple[Sequence[Any], ...] = (rows, questions, groups, digests, codes)
        keys = [key if own else "" for key, own in zip(ids, keyed, strict=True)] if any(keyed) else None
        if not self._sink.writer.takes_all(raws, sources, names, keys, digests, codes):
            taken = [self._is_taken(*one) for one in zip(waiting, names, digests, codes, strict=True)]
            columns = tuple(list(compress(column, taken)) for column in columns)
        self._sink.write_plain(*columns)

    def _is_taken(self, waiting: _Waiting, name: str, digest: bytes, code: int) -> bool:
        """Return whether a row is no copy of an earlier one and has a key of its own."""
        raw, source, key, keyed, *_ = waiting
        record = Record(id=key, group="", source=source, keyed=keyed)
        try:
            return self._sink.writer.takes(raw, record, {"id": name, "meta": {}}, digest, SPLITS[code])
        except RowError as error:
            self._sink.reject(error.reject(source, raw))
            return False
