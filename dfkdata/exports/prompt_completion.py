"""TRL's prompt and completion: the one layout in which TRL learns from responses only, with images too.

{"id", "prompt": [turns], "completion": [the last assistant turn], "images", "tools"?, "meta"}"""

from __future__ import annotations

from dfkdata.rows.record import Row, RowError


def row(row: Row) -> Row:
    """Return the row with its last turn as completion, which must be the assistant's."""
    *prompt, last = row["messages"]
    if last["role"] != "assistant":
        hint = "leave rows without an answer out"
        raise RowError(
            "LAYOUT_CANNOT", "the row ends without an answer", path="messages", value=last, hint=hint
        )
    if last.get("weight", 1) != 1:
        hint = "TRL counts each completion once; use messages or swift, or leave the row out"
        raise RowError(
            "LAYOUT_CANNOT",
            "an answer with a loss weight",
            path="messages.weight",
            value=last["weight"],
            hint=hint,
        )
    rest = {key: value for key, value in row.items() if key not in ("id", "messages")}
    return {"id": row["id"], "prompt": prompt, "completion": [last]} | rest


def inverse(row: Row) -> Row:
    """Return the turns joined again."""
    rest = {key: value for key, value in row.items() if key not in ("id", "prompt", "completion")}
    return {"id": row["id"], "messages": [*row["prompt"], *row["completion"]]} | rest


def check(row: Row) -> None:
    """Raise `RowError` unless one assistant turn completes a prompt that is not empty."""
    if not row["prompt"] or [turn["role"] for turn in row["completion"]] != ["assistant"]:
        raise RowError("LAYOUT_CANNOT", "a prompt and one assistant turn are needed", path="completion")
