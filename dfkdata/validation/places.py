"""Remember where rows came from, in 8 bytes a row, and find out where written rows came from."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec

_FILE = 1 << 44  # a place is its file times this, and the line in it plus 1


class PlaceList:
    """Hold places such as "posts.csv:7" and "posts.json:1[3]", each under its number from 0."""

    def __init__(self) -> None:
        self._codes = array("Q")
        self._names: dict[str, int] = {}
        self._listed: list[str] = []

    def append(self, place: str) -> None:
        """Add a place."""
        name, sign, number = place.rpartition(":")
        if place.endswith("]") and "[" in number:
            name, sign, number = place[:-1].rpartition("[")
        if name and number.isdigit() and number.isascii() and number[0] != "0" and len(number) < 13:
            code = self._number(name + sign) * _FILE + int(number) + 1
        else:
            code = self._number(place) * _FILE
        self._codes.append(code)

    def _number(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            number = self._names[name] = len(self._listed)
            self._listed.append(name)
        return number

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, at: int) -> str:
        file, number = divmod(self._codes[at], _FILE)
        name = self._listed[file]
        if not number:
            return name
        return f"{name}{number - 1}{']' if name.endswith('[') else ''}"


class _Meta(msgspec.Struct):
    source: str = ""


class _Row(msgspec.Struct):
    meta: _Meta


def written_sources(file: Path, lines: Iterable[int]) -> dict[int, str]:
    """Return line (from 1) -> the source of its row, for lines of a file whose rows keep it in `meta`."""
    wanted, found = {*lines}, {}
    decode = msgspec.json.Decoder(_Row).decode
    if wanted:
        with file.open("rb") as rows:
            for number, row in enumerate(rows, start=1):
                if number in wanted:
                    found[number] = decode(row).meta.source
    return found
