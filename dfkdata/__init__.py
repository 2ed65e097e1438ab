"""Raw data in, training rows out: nothing lost and nothing silent.

    from dfkdata import read, convert, load_rows, prompt, training_row, Record, Reject

`read` gives the rows of a raw file as records and rejects; `convert` writes a folder of training files;
`load_rows` reads such a file back; `prompt` and `training_row` turn one record into turns.
Names load on first use, so that importing this package costs next to nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfkdata.conversion.convert import convert
    from dfkdata.conversion.options import Summary
    from dfkdata.conversion.reader import read
    from dfkdata.rows.messages import load_rows, prompt, training_row
    from dfkdata.rows.record import Record, Reject

__all__ = ["Record", "Reject", "Summary", "convert", "load_rows", "prompt", "read", "training_row"]

_HOMES = {
    "Record": "rows.record",
    "Reject": "rows.record",
    "Summary": "conversion.options",
    "convert": "conversion.convert",
    "load_rows": "rows.messages",
    "prompt": "rows.messages",
    "read": "conversion.reader",
    "training_row": "rows.messages",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dfkdata' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dfkdata.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
