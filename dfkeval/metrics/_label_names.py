"""Read labels from answers and write them in the names of values."""

from __future__ import annotations

from collections.abc import Mapping

from dfkdata.schemas import Label


def slug(label: str) -> str:
    """The class as part of a metric's name."""
    return label.lower().replace(" ", "_")


def canonical(value: Mapping[str, object] | None, field: str, role: object) -> str | None:
    """The canonical label that `value` gives, None for none or one outside the set."""
    text = None if value is None else value.get(field)
    if not isinstance(text, str) or not isinstance(role, Label):
        return None
    resolved = role.labels.resolve(text)
    return resolved.label if resolved else None
