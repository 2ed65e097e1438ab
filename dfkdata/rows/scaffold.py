"""The system text and tool definitions that an adapter was trained with."""

from __future__ import annotations

from typing import Any, NamedTuple


class Scaffold(NamedTuple):
    """What an adapter must be asked with: system text and tool definitions."""

    system: str
    tools: list[dict[str, Any]]
