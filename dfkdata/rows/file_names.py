"""Read what a column says about files: a path, embedded bytes, or a list of these, also written as text."""

from __future__ import annotations

import re
from typing import Any

from dfkdata.common import data_uri
from dfkdata.rows.record import RowError


def file_names(value: Any, column: str) -> tuple[str, ...]:
    """Return the files in a cell as paths and `data:` URIs.

    Args:
        value: One file or a list of them; tables hold lists as text, `['a.png', 'b.png']`. None holds no file.
        column: Its column, for errors.

    Raises:
        RowError: A file is neither a path nor embedded bytes, or a list as text cannot be read.
    """
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(file_name(item, column) for item in value)
    if isinstance(value, str) and (cell := value.strip()).startswith("[") and cell.endswith("]"):
        return path_list(cell, column) if cell[1:-1].strip() else ()
    return (file_name(value, column),)


def file_name(item: Any, column: str) -> str:
    """Return a file's path, or the `data:` URI of embedded bytes.

    Raises:
        RowError: If `item`, from the column `column`, is neither.
    """
    if isinstance(item, dict):
        item = item.get("bytes") or item.get("path") or item.get("url")
    if isinstance(item, bytes):
        return data_uri.encode(item)
    if not isinstance(item, str) or not item:
        raise RowError(
            "IMG_LIST", f"{column} holds {type(item).__name__}, not paths", path=column, value=item
        )
    return item


_ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_LIST = re.compile(rf"\[\s*(?:(?:{_ITEM})\s*(?:,\s*(?:{_ITEM})\s*)*,?\s*)?\]")
_BARE = re.compile(r"\[[^\[\]'\"{}()]+\]")
_ESCAPE = re.compile(r"\\(.)")


def path_list(cell: str, column: str) -> tuple[str, ...]:
    """Return the paths in a cell: one bare path, or a list as Python or JSON prints it.

    Quotes may be missing.

    Raises:
        RowError: For an empty list, and for anything in brackets that is not a list of strings.
    """
    if not cell.startswith("["):
        return (cell,)
    if _LIST.fullmatch(cell):
        paths = [_ESCAPE.sub(r"\1", item[1:-1]).strip() for item in re.findall(_ITEM, cell)]
    elif _BARE.fullmatch(cell):
        paths = [item.strip() for item in cell[1:-1].split(",")]
    else:
        paths = []
    if not paths or not all(paths):
        hint = "write ['images/a.jpg', 'images/b.jpg'] or one path"
        raise RowError("IMG_LIST", "not a list of image paths", path=column, value=cell, hint=hint)
    return tuple(paths)
