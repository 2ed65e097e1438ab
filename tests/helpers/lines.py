"""Lines that commands print, without the blanks that align their columns."""

from __future__ import annotations


def joined(text: str) -> list[str]:
    """Return the lines of a text with one blank between words."""
    return [" ".join(line.split()) for line in text.splitlines()]
