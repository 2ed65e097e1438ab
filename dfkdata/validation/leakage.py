"""What the sides of a split share: groups, texts that are nearly the same, pictures that look the same.

Strategy: each written row leaves a few numbers, and they are compared once, at the end, when it is certain
which rows stayed where. Texts leave sketches in a file (`dfkdata.validation.text_sketch`), pictures their difference hash
(`dfkdata.media.perceptual_hash`). Groups are compared, each side with each other, where something other than their hash
divides the rows.
Sketches cost about as much as half of a conversion. So, unless all are asked for (`deep`), each side's first
`FREE_ROWS` rows leave one, and of the others every sixteenth by its content: a lower bound is found then.
Promises: no row is held up or changed, and a rule that is off costs nothing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkdata.media.perceptual_hash import DecodedPicture, PerceptualHasher, near_pairs
from dfkdata.rows.record import Record, RowError
from dfkdata.validation.rules import RuleReporter
from dfkdata.validation.text_sketch import Shared, near, sketches

if TYPE_CHECKING:
    from numpy.typing import NDArray

FREE_ROWS = 10_000
GONE = 255
"""The side of a row that left its file again."""

_SIDES = ("train", "validation", "test")
_MAX_CHARS = 4096  # of a text: enough to know it by, and what bounds the memory of a block
_BLOCK_ROWS = 512
_QUESTION = {"question"}  # asked of many pictures, it tells no two apart


class LeakageCheck:
    """Takes each row when it is written and compares the sides at the end.

    folder: where sketches lie meanwhile. deep: every text leaves a sketch. fixed: the source, or a shuffle of
    rows, divides them, so that groups have to be compared."""

    def __init__(self, folder: Path, report: RuleReporter, *, fixed: bool, deep: bool) -> None:
        wanted = {kind: report.policy(code) != "off" for kind, (code, _) in _RULES.items()}
        self.report = report
        self.sides = bytearray()
        self.orders: tuple[list[int], list[int]] | None = None
        self._sketches = folder / "sketches"
        self._file = self._sketches.open("wb") if wanted["prompts"] else None
        self._texts: list[str] = []
        self._deep, self._free, self._sketched = deep, [FREE_ROWS] * len(_SIDES), array("I")
        self._groups: array[int] | None = array("Q") if fixed and wanted["groups"] else None
        self._wants_looks = wanted["pictures"]
        self._looking: PerceptualHasher | None = None
        self._looks, self._rows = array("Q"), array("Q")

    def row(self, side: int, record: Record, group: str, chance: int) -> None:
        """A row was written to `side`, a place in `split.SPLITS`. chance: a byte that its content decides."""
        if self._file is not None and self._chosen(side, chance):
            self._text(asked(record), len(self.sides))
        self.sides.append(side)
        if self._groups is not None:
            self._groups.append(_number(group))

    def texts(
        self, sides: Sequence[int], texts: Sequence[str], groups: Sequence[str], digests: Sequence[bytes]
    ) -> None:
        """Rows that ask these texts were written, as `row` says; the first byte of a digest is the chance."""
        if self._file is not None:
            for place, (side, digest) in enumerate(zip(sides, digests, strict=True)):
                if self._chosen(side, digest[0]):
                    self._text(texts[place], len(self.sides) + place)
        self.sides += bytes(sides)
        if self._groups is not None:
            self._groups.extend(map(_number, groups))

    def _chosen(self, side: int, chance: int) -> bool:
        """Whether the next row of a side leaves a sketch."""
        if self._free[side]:
            self._free[side] -= 1
            return True
        return self._deep or not chance & 15

    def _text(self, text: str, row: int) -> None:
        if text:
            self._sketched.append(row)
            self._texts.append(text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS])
            if len(self._texts) == _BLOCK_ROWS:
                self._flush()

    def picture(self, path: str, digest: bytes, source: str) -> None:
        """A picture of the row that was written last; `source` is where that row came from."""
        if self._wants_looks:
            if self._looking is None:
                self._looking = PerceptualHasher(self._look)
            self._looking.add((len(self.sides) - 1, source), path, digest)

    def looks(self, found: Sequence[int]) -> None:
        """The looks of the pictures of the row that was written last, where they are known already."""
        for look in found:
            self._look((len(self.sides) - 1, ""), "", DecodedPicture("", look))

    def _look(self, whose: tuple[int, str], name: str, found: DecodedPicture) -> None:
        row, source = whose
        if found.problem:
            reason, hint = f"it does not decode: {found.problem}", "--deep quarantines such rows"
            self.report.source, at_hand = source, self.report.source
            self.report(RowError("IMG_UNDECODED", reason, path="images", value=name, hint=hint))
            self.report.source = at_hand
        else:
            self._looks.append(found.dhash)
            self._rows.append(row)

    def left(self, places: Sequence[int]) -> None:
        """The rows at these places (from 0) of the training file left it again."""
        import numpy

        for row in numpy.flatnonzero(self._side() == 0)[list(places)]:
            self.sides[row] = GONE

    def divided(self, orders: tuple[list[int], list[int]]) -> None:
        """The rows, by the order of writing, stand so in training and validation, and in no other file."""
        self.sides = bytearray([GONE]) * len(self.sides)
        self.orders = orders
        for side, rows in enumerate(orders):
            for row in rows:
                self.sides[row] = side

    def place(self, row: int) -> str:
        """Where a row stands, such as "train.jsonl:7"."""
        side = self.sides[row]
        if side == GONE:
            return "a row that was left out"
        before = self.orders[side].index(row) + 1 if self.orders else self.sides[: row + 1].count(side)
        return f"{_SIDES[side]}.jsonl:{before}"

    def finish(self) -> None:
        """All rows were written: wait for what is being looked at."""
        if self._looking is not None:
            self._looking.finish()

    def close(self) -> None:
        """End the threads."""
        if self._looking is not None:
            self._looking.close()

    def tell(self) -> dict[str, int]:
        """What sides share: groups (any two sides), pictures and prompts (training and held-out rows); the
        report hears of it. Once."""
        shared = {"groups": self._shared_groups(), "pictures": self._near_pictures()}
        shared["prompts"] = self._near_texts()
        self.report.source = "all rows"
        for kind, found in shared.items():
            if found.number:
                code, says = _RULES[kind]
                if kind == "prompts" and self._partly():
                    says += " (of those looked at; --deep looks at all)"
                pair = f"{self.place(found.held)} and {self.place(found.train)}"
                self.report(RowError(code, f"{found.number} {says}, such as {pair}", hint=_HINT))
        return {kind: found.number for kind, found in shared.items()}

    def _partly(self) -> bool:
        """Whether some rows left no sketch because there were too many."""
        return not self._deep and 0 in self._free

    def _side(self) -> NDArray[Any]:
        import numpy

        return numpy.frombuffer(bytes(self.sides), numpy.uint8)

    def _flush(self) -> None:
        if self._texts and self._file is not None:
            self._file.write(sketches(self._texts).tobytes())
            self._texts.clear()

    def _shared_groups(self) -> Shared:
        if self._groups is None:
            return Shared(0)
        import numpy

        found, side = numpy.frombuffer(self._groups, numpy.uint64), self._side()
        apart = [numpy.unique(found[side == at]) for at in range(len(_SIDES))]
        groups, sides = numpy.unique(numpy.concatenate(apart), return_counts=True)
        shared = groups[sides > 1]
        if not len(shared):
            return Shared(0)
        taught = shared[numpy.isin(shared, apart[0])]  # the worse case makes the better example
        rows = numpy.flatnonzero((found == (*taught, *shared)[0]) & (side < GONE))
        low = int(rows[numpy.argmin(side[rows])])
        return Shared(len(shared), int(rows[side[rows] != side[low]][0]), low)

    def _near_pictures(self) -> Shared:
        sides: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for look, row in zip(self._looks, self._rows, strict=True):
            if self.sides[row] != GONE:
                sides[self.sides[row] > 0].append((look, row))
        pairs = near_pairs(sides[True], sides[False])
        return Shared(len(pairs), *pairs[0]) if pairs else Shared(0)

    def _near_texts(self) -> Shared:
        if self._file is None:
            return Shared(0)
        found = Shared(0)
        if len(set(self.sides) - {GONE}) > 1:
            self._flush()
            self._file.flush()
            side = self._side()[list(self._sketched)]
            found = near(self._sketches, side == 0, (side > 0) & (side < GONE))
        self._file.close()
        self._sketches.unlink()
        if not found.number:
            return found
        return Shared(found.number, self._sketched[found.held], self._sketched[found.train])


_RULES = {
    "groups": ("GROUP_ACROSS", "groups have rows on more than one side"),
    "pictures": ("IMG_NEAR_DUPLICATE", "held-out pictures look like training ones"),
    "prompts": ("TEXT_NEAR_DUPLICATE", "held-out prompts are nearly training ones"),
}
_HINT = "scores on such rows are too good; keep them on one side with --group-by, or drop one of the two"


def _number(group: str) -> int:
    return int.from_bytes(sha256(group.encode("utf-8", "surrogatepass")).digest()[:8])


def asked(record: Record) -> str:
    """What tells the row from others: its fields, or the texts of its user turns. Empty where only its
    pictures do: an instruction or a question that is asked of many pictures says nothing about them."""
    if record.fields:
        says = not record.images or record.fields.keys() - _QUESTION
        return "\n".join(record.fields.values()) if says else ""
    messages = record.messages
    if not messages or record.images:
        return ""
    if len(messages) == 2 and len(content := messages[0]["content"]) == 1 and "text" in content[0]:
        return str(content[0]["text"])
    turns = (message["content"] for message in messages if message.get("role") == "user")
    return "\n".join(part["text"] for parts in turns for part in parts if part["type"] == "text")
