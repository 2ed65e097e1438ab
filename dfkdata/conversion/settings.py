"""Compare the settings that two manifests record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dfkdata.rows.record import shorten

Difference = tuple[str, Any, Any]
"""A setting, named as its option, with its two values; None if it was not given."""

_OPTIONS = {"format": "from", "schema_name": "schema", "rules": "rule", "options": "option"}


def option_of(setting: str) -> str:
    """Return the option of `dfkdata convert` that a setting of a manifest is given by, without its dashes."""
    return _OPTIONS.get(setting, setting.replace("_", "-"))


def differences(old: Any, new: Any) -> Iterator[Difference]:
    """Yield each setting that differs between the `config` of two manifests.

    Policies of rules and options of the format are compared one by one: "rule IMG_SHAPE", "option join"."""
    old, new = (one if isinstance(one, dict) else {} for one in (old, new))
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if before == now:
            continue
        if key in ("options", "rules") and all(isinstance(one or {}, dict) for one in (before, now)):
            before, now = before or {}, now or {}
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    yield f"{option_of(key)} {name}", before.get(name), now.get(name)
            continue
        yield option_of(key), before, now


def shown(value: Any) -> str:
    """Return a setting's value for a message."""
    return "not given" if value is None else shorten(value)
