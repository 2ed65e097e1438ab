"""What the splits of a data set share: groups, texts that are nearly the same, pictures that look the same.

How it works: each written row leaves a few numbers, and they are compared once, at the end, when it is
certain which rows stayed where. Texts leave sketches in a file (`dfkdata.validation.text_sketch`), pictures
their difference hash (`dfkdata.media.perceptual_hash`). Groups are compared, each split with each other, if
something other than their hash divides the rows.
Sketches cost about as much as half of a conversion. So, unless all are asked for (`deep`), the first
`FREE_ROWS` rows of each split leave one, and of the others every sixteenth by its content: the numbers are a
lower bound then.

Guarantees: no row is held up or changed, and a rule that is off costs nothing."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dfkdata.common.hashing import number_of
from dfkdata.media.perceptual_hash import DecodedPicture, PerceptualHasher, near_pairs
from dfkdata.media.probe import Picture
from dfkdata.rows.record import Record, RowError
from dfkdata.validation.places import PlaceList, written_sources
from dfkdata.validation.rules import RuleReporter, WarnedRow
from dfkdata.validation.text_sketch import Shared, common_shingles, near, sketches
from dfkdata.validation.written_rows import GONE, WrittenRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FREE_ROWS = 10_000
_SPLITS = ("train", "validation", "test")
MAX_CHARS = 4096  # of a text: enough to know it by, and what bounds the memory of a block
_BLOCK_ROWS = 512
_BLOCKS_A_LOOK = 8  # after so many blocks it is looked for a new instruction
_TEXTS_A_LOOK = 128  # in about so many texts
QUESTION = frozenset({"question"})
"""Fields that are asked of many pictures, so that they tell no two rows apart."""


class Compared(NamedTuple):
    """Say what is compared between the splits.

    Attributes:
        prompts: Texts that are nearly the same.
        groups: Whether the rule about groups is on.
        pictures: Pictures that look the same.
        divides_groups: Whether something other than its hash divides a group, so that it can be in two splits.
        deep: Whether all texts and pictures are looked at.
    """

    prompts: bool
    groups: bool
    pictures: bool
    divides_groups: bool
    deep: bool

    @classmethod
    def of(cls, rules: RuleReporter, *, groups: bool, deep: bool) -> Compared:
        """Return what the policies ask for; `groups` is `divides_groups`."""
        on = {kind: rules.policy(rule[0]) != "off" for kind, rule in _RULES.items()}
        return cls(on["prompts"], groups and on["groups"], deep or on["pictures"], groups, deep)


class LeakageCheck:
    """Take each row when it is written, and compare the splits at the end."""

    def __init__(self, folder: Path, rules: RuleReporter, rows: WrittenRows, compared: Compared) -> None:
        """Open what the rules that are on need.

        Args:
            folder: Where sketches lie meanwhile.
            rules: The policies; hears of shared rows.
            rows: Where each row lies; whoever writes a row adds it there after it was taken here.
            compared: What is compared.
        """
        self._rules, self._rows, self._compares_groups = rules, rows, compared.divides_groups
        self._folder, self._sources = folder, PlaceList()
        self._texts = _TextSketches(folder / "sketches", compared.deep) if compared.prompts else None
        self._groups: array[int] | None = array("Q") if compared.groups else None
        self._pictures = _PictureHashes(rules) if compared.pictures else None

    def add(
        self,
        split: int,
        record: Record,
        group: str,
        chance: int,
        pictures: Sequence[tuple[str, Picture]],
        hashes: Sequence[int] | None,
        *,
        keeps_source: bool,
    ) -> None:
        """Take a row that was written.

        Args:
            split: Place of its split in train, validation, test.
            record: The record behind it.
            group: Its group.
            chance: A byte that its content decides; multiples of 16 are sampled.
            pictures: The path of each picture, and what it is.
            hashes: Perceptual hashes of the pictures if they are known already, else None.
            keeps_source: Whether the written row says where it came from; all rows of a layout do, or none.
        """
        number = len(self._rows)
        if self._texts is not None and self._texts.samples(split, chance):
            self._texts.add(prompt_text(record), number)
        if not keeps_source:
            self._sources.append(record.source)
        if self._groups is not None:
            self._groups.append(number_of(group))
        if pictures and self._pictures is not None:
            self._pictures.add(number, record.source, pictures, hashes)

    def add_texts(
        self, splits: Sequence[int], texts: Sequence[str], groups: Sequence[str], digests: Sequence[bytes]
    ) -> None:
        """Take rows of plain text column by column, as `add` takes one; `digests` begin with the chance."""
        if self._texts is not None:
            for place, (split, digest) in enumerate(zip(splits, digests, strict=True)):
                if self._texts.samples(split, digest[0]):
                    self._texts.add(texts[place], len(self._rows) + place)
        if self._groups is not None:
            self._groups.extend(map(number_of, groups))

    def add_known(self, splits: bytes, texts: Sequence[str], groups: Sequence[int], chances: bytes) -> None:
        """Take rows of which a shard kept what `add` takes from them: the text and the number of the group."""
        if self._texts is not None:
            for place in self._texts.sampled(splits, chances):
                self._texts.add(texts[place], len(self._rows) + place)
        if self._groups is not None:
            self._groups.extend(groups)

    def add_source(self, source: str) -> None:
        """Remember where the row that was taken last came from, in layouts that do not say it."""
        self._sources.append(source)

    def add_pictures(
        self,
        row: int,
        source: str,
        pictures: Sequence[tuple[str, Picture]],
        decoded: Sequence[DecodedPicture],
    ) -> None:
        """Take the pictures of a row that was taken, which were decoded elsewhere."""
        if self._pictures is not None:
            self._pictures.add(row, source, pictures, None, decoded)

    def finish(self) -> None:
        """Wait for the pictures that are being decoded."""
        if self._pictures is not None:
            self._pictures.finish()

    def close(self) -> None:
        """End the threads."""
        if self._pictures is not None:
            self._pictures.close()

    def compare(self) -> dict[str, int]:
        """Compare the splits, once, and report what they share.

        Returns:
            Number of groups in two splits, of held-out pictures and of held-out prompts like training ones, for
            what was compared.
        """
        shared = {}
        if self._groups is not None or not self._compares_groups:
            shared["groups"] = self._shared_groups()
        if self._pictures is not None:
            shared["pictures"] = self._near_pictures()
        if self._texts is not None:
            shared["prompts"] = self._near_texts()
        self._report(shared)
        return {kind: rows.number for kind, rows in shared.items()}

    def _report(self, shared: dict[str, Shared]) -> None:
        """Report each kind of rows that the splits share, with a line for each row."""
        if not any(rows.number for rows in shared.values()):
            return
        pairs = {kind: [*dict.fromkeys(rows.pairs)] for kind, rows in shared.items()}
        place = self._rows.places()
        source = self._source_of({row for kind in pairs.values() for pair in kind for row in pair}, place)
        for kind, rows in shared.items():
            if not rows.number:
                continue
            code, says, each = _RULES[kind]
            if kind == "prompts" and self._texts is not None and self._texts.is_partial:
                says += " (of those looked at; --deep looks at all)"
            lines = []
            for held, like in pairs[kind]:
                reason = f"{each} a row of {place(like).partition('.')[0]}"
                lines.append(WarnedRow(source[held], source[like], place(held), place(like), reason))
            first = lines[0]
            example = f"{first.row} and {first.partner_row} (in the input {first.source} and {first.partner})"
            reason = f"{rows.number} {says}, such as {example}"
            self._rules.report(RowError(code, reason, hint=_HINT), "all rows", lines)

    def _source_of(self, rows: Collection[int], place: Callable[[int], str]) -> dict[int, str]:
        """Return row -> "file:line" of its raw row, which written rows say themselves or was remembered."""
        if len(self._sources):
            return {row: self._sources[row] for row in rows}
        lines: dict[str, dict[int, int]] = {}
        for row in rows:
            file, _, line = place(row).partition(":")
            lines.setdefault(file, {})[row] = int(line)
        found = {file: written_sources(self._folder / file, of.values()) for file, of in lines.items()}
        return {row: found[file][line] for file, of in lines.items() for row, line in of.items()}

    def _shared_groups(self) -> Shared:
        if self._groups is None:
            return Shared(0)
        import numpy

        groups, codes = numpy.frombuffer(self._groups, numpy.uint64), self._rows.codes()
        members = [numpy.unique(groups[codes == split]) for split in range(len(_SPLITS))]
        distinct, counts = numpy.unique(numpy.concatenate(members), return_counts=True)
        shared = distinct[counts > 1]
        if not len(shared):
            return Shared(0)
        rows = numpy.flatnonzero(numpy.isin(groups, shared) & (codes < GONE))
        rows = rows[numpy.lexsort((rows, codes[rows], groups[rows]))]
        _, first, member = numpy.unique(groups[rows], return_index=True, return_inverse=True)
        low = rows[first[member]]  # of the same group, the first row of its first split
        held = codes[rows] != codes[low]
        pairs = [(int(row), int(other)) for row, other in zip(rows[held], low[held], strict=True)]
        # The worse case, a group in training, makes the better example.
        return Shared(len(shared), sorted(pairs, key=lambda pair: bool(codes[pair[1]])))

    def _near_pictures(self) -> Shared:
        if self._pictures is None:
            return Shared(0)
        train: list[tuple[int, int]] = []
        held: list[tuple[int, int]] = []
        for dhash, row in self._pictures.hashes():
            if self._rows[row] != GONE:
                (held if self._rows[row] else train).append((dhash, row))
        pairs = near_pairs(held, train)
        return Shared(len(pairs), pairs)

    def _near_texts(self) -> Shared:
        if self._texts is None:
            return Shared(0)
        with self._texts as texts:
            if not self._rows.is_divided():
                return Shared(0)
            return texts.near(self._rows.codes())


class _TextSketches:
    """Keep the sketches of sampled texts in a file."""

    def __init__(self, path: Path, deep: bool) -> None:
        self._path, self._deep = path, deep
        self._file = path.open("wb")
        self._free = [FREE_ROWS] * len(_SPLITS)
        self._waiting: list[str] = []
        self._rows = array("I")
        self._blocks = 0
        self._common: NDArray[Any] | None = None

    @property
    def is_partial(self) -> bool:
        """Whether some rows left no sketch because there were too many."""
        return not self._deep and 0 in self._free

    def samples(self, split: int, chance: int) -> bool:
        """Return whether the next row of a split leaves a sketch."""
        if self._free[split]:
            self._free[split] -= 1
            return True
        return self._deep or not chance & 15

    def sampled(self, splits: bytes, chances: bytes) -> list[int]:
        """Return which of the next rows leave a sketch."""
        if self._deep or any(self._free[split] for split in {*splits}):
            pairs = enumerate(zip(splits, chances, strict=True))
            return [place for place, (split, chance) in pairs if self.samples(split, chance)]
        return [place for place, chance in enumerate(chances) if not chance & 15]

    def add(self, text: str, row: int) -> None:
        if text:
            self._rows.append(row)
            self._waiting.append(text if len(text) <= MAX_CHARS else text[:MAX_CHARS])
            if len(self._waiting) == _BLOCK_ROWS:
                self._flush()

    def near(self, codes: NDArray[Any]) -> Shared:
        """Return the held-out rows that are nearly training ones. codes: split of each row."""
        self._flush()
        self._file.flush()
        split = codes[list(self._rows)]
        shared = near(self._path, split == 0, (split > 0) & (split < GONE))
        return Shared(shared.number, [(self._rows[held], self._rows[train]) for held, train in shared.pairs])

    def __enter__(self) -> _TextSketches:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def _flush(self) -> None:
        if self._waiting:
            if not self._blocks % _BLOCKS_A_LOOK:
                self._learn_common()
            self._blocks += 1
            self._file.write(sketches(self._waiting, self._common).tobytes())
            self._waiting.clear()

    def _learn_common(self) -> None:
        """Look for what many texts say, such as an instruction, which tells no two of them apart."""
        import numpy

        common = common_shingles(self._waiting[:: max(1, len(self._waiting) // _TEXTS_A_LOOK)])
        if self._common is not None:
            common = numpy.union1d(self._common, common)
        self._common = common


class _PictureHashes:
    """Keep the perceptual hash of each picture and the row that shows it."""

    def __init__(self, rules: RuleReporter) -> None:
        self._rules = rules
        self._hasher: PerceptualHasher | None = None
        self._hashes, self._rows = array("Q"), array("Q")

    def add(
        self,
        row: int,
        source: str,
        pictures: Sequence[tuple[str, Picture]],
        hashes: Sequence[int] | None,
        decoded: Sequence[DecodedPicture] = (),
    ) -> None:
        """Take the pictures of a row; those without a known hash, or not decoded yet, are decoded in threads."""
        if hashes is not None:
            self._hashes.extend(hashes)
            self._rows.extend([row] * len(hashes))
            return
        if self._hasher is None:
            self._hasher = PerceptualHasher(self._decoded)
        for at, (path, picture) in enumerate(pictures):
            self._hasher.add((row, source), path, picture, decoded[at] if decoded else None)

    def hashes(self) -> list[tuple[int, int]]:
        """Return (hash, row) of every picture."""
        return list(zip(self._hashes, self._rows, strict=True))

    def finish(self) -> None:
        if self._hasher is not None:
            self._hasher.finish()

    def close(self) -> None:
        if self._hasher is not None:
            self._hasher.close()

    def _decoded(self, whose: tuple[int, str], path: str, picture: DecodedPicture) -> None:
        row, source = whose
        if picture.problem:
            reason, hint = f"it does not decode: {picture.problem}", "--deep quarantines such rows"
            error = RowError("IMG_UNDECODED", reason, path="images", value=Path(path).name, hint=hint)
            self._rules.report(error, source, number=row)
        else:
            self._hashes.append(picture.dhash)
            self._rows.append(row)


_RULES = {
    "groups": ("GROUP_ACROSS", "groups have rows in more than one split", "is of the same group as"),
    "pictures": (
        "IMG_NEAR_DUPLICATE",
        "held-out pictures look like training ones",
        "shows nearly what is shown by",
    ),
    "prompts": (
        "TEXT_NEAR_DUPLICATE",
        "held-out prompts are nearly training ones",
        "asks nearly the same as",
    ),
}
_HINT = "scores on such rows are too good; keep them in one split with --group-by, or drop one of the two"


def prompt_text(record: Record) -> str:
    """Return the text that tells the row from others: its fields, or the texts of its user turns.

    Empty if only its pictures do: an instruction or a question that is asked of many pictures says nothing
    about them."""
    if record.fields:
        differs = not record.images or record.fields.keys() - QUESTION
        return "\n".join(record.fields.values()) if differs else ""
    messages = record.messages
    if not messages or record.images:
        return ""
    if len(messages) == 2 and len(content := messages[0]["content"]) == 1 and "text" in content[0]:
        return str(content[0]["text"])
    turns = (message["content"] for message in messages if message.get("role") == "user")
    return "\n".join(part["text"] for parts in turns for part in parts if part["type"] == "text")
