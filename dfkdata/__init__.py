"""Raw data in, training rows out: nothing lost and nothing silent.

    from dfkdata import read, convert, load_rows, prompt, training_row, Record, Reject

`read` gives the rows of a raw file as records and rejects; `convert` writes a folder of training files;
`load_rows` reads such a file back; `prompt` and `training_row` turn one record into turns.
Names load on first use, so that importing this package costs next to nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfkdata.pipeline import convert
    from dfkdata.plan import Summary
    from dfkdata.reader import read
    from dfkdata.records import Record, Reject
    from dfkdata.rows import load_rows, prompt, training_row

__all__ = ["Record", "Reject", "Summary", "convert", "load_rows", "prompt", "read", "training_row"]

_HOMES = {
    "Record": "records",
    "Reject": "records",
    "Summary": "plan",
    "convert": "pipeline",
    "load_rows": "rows",
    "prompt": "rows",
    "read": "reader",
    "training_row": "rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dfkdata' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dfkdata.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
