"""Convert raw data into training rows; every row is written, or rejected with a reason.

    from dfkdata import Record, Reject, Summary, convert, load_rows, prompt, read, training_row
    from dfkdata import diff_folders, merge_folders

`read` yields the rows of a raw file as records and rejects. `convert` writes a folder of training files.
`load_rows` reads such a file back, `diff_folders` compares two folders, and `merge_folders` merges several. `prompt`
and `training_row` turn one record into chat messages. Names load on first use, so that importing this package costs
next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfkdata.common.lazy import lazy_exports

if TYPE_CHECKING:
    from dfkdata.conversion.convert import convert as convert
    from dfkdata.conversion.folders.diff import FolderDiff as FolderDiff
    from dfkdata.conversion.folders.diff import diff_folders as diff_folders
    from dfkdata.conversion.folders.merge import MergeSummary as MergeSummary
    from dfkdata.conversion.folders.merge import merge_folders as merge_folders
    from dfkdata.conversion.options import Summary as Summary
    from dfkdata.conversion.reader import read as read
    from dfkdata.rows.messages import load_rows as load_rows
    from dfkdata.rows.messages import prompt as prompt
    from dfkdata.rows.messages import training_row as training_row
    from dfkdata.rows.record import Record as Record
    from dfkdata.rows.record import Reject as Reject

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "FolderDiff": "conversion.folders.diff",
        "MergeSummary": "conversion.folders.merge",
        "Record": "rows.record",
        "Reject": "rows.record",
        "Summary": "conversion.options",
        "convert": "conversion.convert",
        "diff_folders": "conversion.folders.diff",
        "load_rows": "rows.messages",
        "merge_folders": "conversion.folders.merge",
        "prompt": "rows.messages",
        "read": "conversion.reader",
        "training_row": "rows.messages",
    },
)
