"""Read labels from answers and write them in the names of values."""

from __future__ import annotations

from collections.abc import Mapping

from dfkdata.schemas import Label


def slug(label: str) -> str:
    """Return the label as part of a value's name."""
    return label.lower().replace(" ", "_")


def canonical(value: Mapping[str, object] | None, field: str, role: object) -> str | None:
    """Return the canonical label of an answer; None for none or one outside the set."""
    text = None if value is None else value.get(field)
    if not isinstance(text, str) or not isinstance(role, Label):
        return None
    resolved = role.labels.resolve(text)
    return resolved.label if resolved else None
