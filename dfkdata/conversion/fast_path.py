"""Rows of plain text, many at once: nearly every row of a text data set is one question and one answer that
break no rule.

Strategy: such a row waits as the bytes of its turns; a few hundred are then hashed, divided, looked up among
the rows before and written by loops that run in C. A row that is anything more goes through `flow` alone,
after those that wait. Of a waiting row little is kept: objects that live longer cost Python more.
Promises: the same bytes in the same order as if each row had gone alone; little more than `_WAITING_BYTES` of
turns wait."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import compress
from typing import TYPE_CHECKING, Any

import msgspec

from dfkdata.conversion import selection
from dfkdata.conversion.splits import SPLITS
from dfkdata.conversion.writer import CODE
from dfkdata.rows.messages import PlainMeta, PlainRow
from dfkdata.rows.record import Record, Reject, RowError
from dfkdata.validation import conversation, text

if TYPE_CHECKING:
    from dfkdata.conversion.runner import ConversionRun

_WAITING_BYTES = 1 << 17
_Waiting = tuple[Any, str, str, bool, bytes, str, str, str]
"""raw row, source, id, keyed, turns, question, group, side; the last two are empty where the turns decide."""


class PlainTextBatcher:
    """Takes the plain rows of a conversion that needs nothing which only a row alone gets."""

    def __init__(self, flow: ConversionRun) -> None:
        self._flow = flow
        self._group_by = flow.plan.group_by
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[_Waiting] = []
        self._bytes = 0

    def takes(self, raw: Any, item: Record | Reject, fixed: str | None) -> bool:
        """Whether a row is plain. Then it waits and is written in time, at the latest by `write`."""
        if type(item) is not Record or item.messages is None:
            return False
        if (
            item.images
            or item.videos
            or item.audios
            or item.tools
            or item.warnings
            or item.fields
            or item.meta
        ):
            return False
        question = conversation.plain_question(item.messages)
        group = item.group if self._group_by is None else selection.text(raw, self._group_by)
        if not question or item.gold is not None or group is None:
            return False
        try:
            turns = self._encode(item.messages)
            self._encode((item.source, item.id, group))
        except UnicodeEncodeError:
            return False
        if text.may_hold_control_token(turns) or not (turns.isascii() or text.is_normal(turns.decode())):
            return False
        side = fixed or item.split or ""
        self._waiting.append((raw, item.source, item.id, item.keyed, turns, question, group, side))
        self._bytes += len(turns)
        if self._bytes > _WAITING_BYTES:
            self.write()
        return True

    def write(self) -> None:
        """Write the rows that wait."""
        if not self._waiting:
            return
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        _, sources, ids, keyed, turns, questions, given, fixed = zip(*waiting, strict=True)
        digests = [sha256(one).digest()[:8] for one in turns]
        names = [name or digest.hex() for name, digest in zip(ids, digests, strict=True)]
        groups = [group or name for group, name in zip(given, names, strict=True)]
        by_rule = fixed if all(fixed) else self._flow.side.many(groups)
        sides = [CODE[side or otherwise] for side, otherwise in zip(fixed, by_rule, strict=True)]
        metas = map(PlainMeta, groups, sources)
        rows = [
            PlainRow(name, msgspec.Raw(one), (), meta)
            for name, one, meta in zip(names, turns, metas, strict=True)
        ]
        columns: tuple[Sequence[Any], ...] = (rows, questions, groups, digests, sides)
        if any(keyed) or not self._flow.written.all_new(digests, sides):
            taken = [self._is_taken(*one) for one in zip(waiting, names, digests, sides, strict=True)]
            columns = tuple(list(compress(column, taken)) for column in columns)
        self._flow.write_plain(*columns)

    def _is_taken(self, waiting: _Waiting, name: str, digest: bytes, side: int) -> bool:
        """Whether a row is no copy of an earlier one and has a key of its own."""
        raw, source, key, keyed, *_ = waiting
        record = Record(id=key, group="", source=source, keyed=keyed)
        try:
            return self._flow.written.takes(raw, record, {"id": name, "meta": {}}, digest, SPLITS[side])
        except RowError as fault:
            self._flow.reject(fault.reject(source, raw))
            return False
