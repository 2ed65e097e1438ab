"""Read WebDataset tars: members with one key are one sample, whose fields are named by what follows the key.

How it works. A tar is read once from its start, one sample in memory. The key is the path up to the first dot
of the file's name, so `a/007.jpg`, `a/007.txt` and `a/007.json` are the fields jpg, txt and json of `a/007`.
Pictures stay bytes, text and JSON are decoded.

Guarantees: a tar that unpacks to far more than its own size, or lacks its end, is refused; members that are no
fields of a sample (links, hidden files, other kinds) are counted."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dfkdata.common.errors import DataError
from dfkdata.rows.record import Reject, Row, RowError
from dfkdata.rows.split_names import split_in
from dfkdata.sources import _archive
from dfkdata.sources._part import Part, is_litter
from dfkdata.sources._pictures import PICTURES
from dfkdata.sources._rejects import DECODE, SourcedRow

if TYPE_CHECKING:
    import tarfile

TARS = (".tar", ".tar.gz", ".tgz")
_MEMBER_BYTES = 1 << 28
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_TEXTS = ("txt", "text", "cls", "cls2", "caption", "transcript", "index")


def parts(tars: Iterable[Path], base: Path) -> list[Part]:
    """Return a part for each tar; names of files or folders such as `train-000.tar` give the split."""
    names = [(tar, tar.relative_to(base).as_posix()) for tar in tars]
    return [
        Part(name, tar.parent, tar, split=split_in(name), fetched=True, reads=_rows) for tar, name in names
    ]


def _rows(part: Part) -> Iterator[SourcedRow]:
    import tarfile

    assert part.path is not None
    most, read, other = _archive.limit(part.path), 0, 0
    sample: Row = {}
    faults: list[RowError] = []
    number = 0
    try:
        with tarfile.open(part.path) as tar:
            for member in tar:
                match = _KEY.fullmatch(member.name.removeprefix("./"))
                if not member.isfile() or match is None or is_litter(member.name.removeprefix("./")):
                    other += not member.isdir()
                    continue
                key, field = match[1], match[2].lower()
                if sample and sample["__key__"] != key:
                    number += 1
                    yield _finished(sample, faults, f"{part.name}:{number}")
                    sample, faults = {}, []
                sample.setdefault("__key__", key)
                kind = field.rpartition(".")[2]
                if "." + kind not in PICTURES and kind not in (*_TEXTS, "json"):
                    other += 1
                    continue
                read += member.size
                if read > most or member.size > _MEMBER_BYTES:
                    raise _archive.too_large(part.path, min(most, _MEMBER_BYTES))
                _add(sample, faults, field, kind, _bytes(tar, member))
            _archive.check_end(tar)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{part.path}: not a whole archive ({error}); fetch it again") from error
    if sample:
        number += 1
        yield _finished(sample, faults, f"{part.name}:{number}")
    if other:
        part.facts["other_members"] = other


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _add(sample: Row, faults: list[RowError], field: str, kind: str, data: bytes) -> None:
    """Put a field into the sample; what cannot be read is added to the faults."""
    if field in sample:
        faults.append(RowError("KEY_TWICE", f"the field {field!r} stands twice in the sample", path=field))
        return
    value: Any = data
    try:
        if kind in _TEXTS:
            value = data.decode("utf-8-sig")
        elif kind == "json":
            value = DECODE(data)
    except UnicodeDecodeError as error:
        faults.append(RowError("BAD_ENCODING", f"the text is not UTF-8 ({error.reason})", path=field))
        value = data.decode("utf-8", "backslashreplace")
    except (msgspec.DecodeError, RecursionError) as error:
        faults.append(RowError("BAD_JSON", f"the field is not JSON: {error}", path=field))
        value = data.decode("utf-8", "backslashreplace")
    sample[field] = value


def _finished(sample: Row, faults: list[RowError], source: str) -> tuple[Row | Reject, str]:
    return (faults[0].reject(source, sample) if faults else sample), source
