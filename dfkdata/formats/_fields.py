"""Read text, keys, groups and lists of paths from the columns of a raw row."""

from __future__ import annotations

from dfkdata.rows.record import Row, RowError


def text(row: Row, name: str) -> str:
    """Return the text under `name`, stripped; empty if there is none.

    Args:
        row: The raw row.
        name: The column.

    Returns:
        The text without blanks around it.

    Raises:
        RowError: The value is not text.

    Example:
        >>> from dfkdata.formats import text
        >>> text({"title": " Halo "}, "title"), text({}, "title")
        ('Halo', '')
    """
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = "write it as a string" if isinstance(value, int | float) else ""
        raise RowError(
            "NOT_TEXT", f"{name} is {type(value).__name__}, not text", path=name, value=value, hint=hint
        )
    return value.strip()


def need(row: Row, name: str, *, hint: str = "") -> str:
    """Return the text under `name`.

    Args:
        row: The raw row.
        name: The column.
        hint: What the user should do if it is missing.

    Returns:
        The text without blanks around it.

    Raises:
        RowError: The text is missing or blank, or the value is not text.

    Example:
        >>> from dfkdata.formats import RowError, need
        >>> try:
        ...     need({"title": " "}, "title", hint="give each post a title")
        ... except RowError as error:
        ...     print(error.code, error.reason)
        FIELD_EMPTY title is missing or empty
    """
    value = text(row, name)
    if not value:
        raise RowError(
            "FIELD_EMPTY", f"{name} is missing or empty", path=name, value=row.get(name, ""), hint=hint
        )
    return value


def label(row: Row, name: str) -> str:
    """Return the label under `name` as text: sources number their classes as often as they name them.

    Args:
        row: The raw row.
        name: The column.

    Raises:
        RowError: The label is missing or blank, or neither text nor a whole number.

    Example:
        >>> from dfkdata.formats import label
        >>> label({"label": 2.0}, "label"), label({"label": " fitnah "}, "label")
        ('2', 'fitnah')
    """
    value = row.get(name)
    if (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    ):
        return str(int(value))
    return need(row, name, hint="write one of the four labels")


GROUP_KEYS = ("link", "post_id", "case_id")
"""Keys of a row, or of its `meta`, that rows of one post or case share; the first one present counts."""


def group_key(row: Row) -> str:
    """Return the post or case that the row, or else its `meta`, says it belongs to; empty if neither does.

    Only text and whole numbers are keys.

    Args:
        row: The raw row.

    Returns:
        The value of the first of `link`, `post_id` and `case_id` that is there.

    Example:
        >>> from dfkdata.formats import group_key
        >>> group_key({"text": "a", "meta": {"post_id": 7}})
        '7'
    """
    for holder in (row, row.get("meta")):
        if isinstance(holder, dict):
            for name in GROUP_KEYS:
                value = holder.get(name)
                if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                    return str(value).strip()
    return ""


def key(row: Row, name: str) -> str:
    """Return a key as text: sources number their rows and pictures as often as they name them.

    Args:
        row: The raw row.
        name: The column.

    Returns:
        The key; empty if there is none.

    Raises:
        RowError: The value is neither text nor a whole number.

    Example:
        >>> from dfkdata.formats import key
        >>> key({"nr": 12}, "nr"), key({"nr": "a-12"}, "nr")
        ('12', 'a-12')
    """
    value = row.get(name)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(row, name)
