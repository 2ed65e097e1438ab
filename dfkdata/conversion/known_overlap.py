"""What a conversion found that one of its files shares with its training split.

Guarantees: what is not known is None, and never no overlap: a file that no conversion wrote, or that was changed
since, or a rule that was off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from dfkdata.common import manifest

KINDS = {"GROUP_ACROSS": "groups", "TEXT_NEAR_DUPLICATE": "prompts", "IMG_NEAR_DUPLICATE": "pictures"}
"""Code of a rule -> kind of `dfkdata.validation.overlap`."""

_TRAIN = "train.jsonl"


class _Warning(msgspec.Struct):
    code: str
    source: str
    partner: str = ""
    row: str = ""
    partner_row: str = ""


def known_overlap(file: Path, sha256: str, counts_row: Callable[[int], bool]) -> dict[str, int] | None:
    """Return what rows of a file share with training, as the conversion that wrote it found out.

    Args:
        file: A file of rows.
        sha256: The hash of its bytes.
        counts_row: Whether a row, by its number from 1, is one of those that are asked about.

    Returns:
        Kind -> number of rows, for the kinds that were compared; {"ids": rows} for the training split itself.
        None if nothing is known.
    """
    file = file.resolve()
    written = manifest.read(file.parent)
    if written is None or (file.name, sha256) not in {
        (output.path, output.sha256) for output in written.outputs
    }:
        return None
    if file.name == _TRAIN:
        with file.open("rb") as lines:
            return {"ids": sum(counts_row(number) for number, _ in enumerate(lines, start=1))}
    if written.overlap is None:
        return None
    found = _warned(file, counts_row)
    if found is None:  # an older release wrote no such file; these are counts over all splits
        return dict(written.overlap)
    return {kind: len(found.get(kind, ())) for kind in written.overlap}


def _warned(file: Path, counts_row: Callable[[int], bool]) -> dict[str, set[int]] | None:
    """Return kind -> numbers of the rows that warnings.jsonl says are like training rows; None without the file."""
    decode = msgspec.json.Decoder(_Warning).decode
    rows: dict[str, set[int]] = {}
    try:
        with (file.parent / "warnings.jsonl").open("rb") as lines:
            for warning in map(decode, lines):
                row, partner = (
                    (warning.row, warning.partner_row) if warning.row else (warning.source, warning.partner)
                )
                name, _, number = row.rpartition(
                    ":"
                )  # an older release wrote these places as source and partner
                is_ours = name == file.name and partner.startswith(f"{_TRAIN}:")
                if is_ours and warning.code in KINDS and counts_row(int(number)):
                    rows.setdefault(KINDS[warning.code], set()).add(int(number))
    except (OSError, msgspec.MsgspecError):
        return None
    return rows
