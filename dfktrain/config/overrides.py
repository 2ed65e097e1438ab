"""Change a configuration by override files and `--set`, and list what they changed.

An override file maps dotted places to values; * stands for every entry of a list.

    model.name: tiny
    stages.*.steps: 2

Guarantees:
    - Files apply in order, `--set` after them, and the result is checked as one configuration.
    - If there is a file, every place whose value changes is listed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.config import Config, load_config, read_mapping
from dfkdata.common.errors import ConfigError
from dfktrain.config import presets
from dfktrain.config.run import TrainConfig


def load(
    path: Path, files: Sequence[str] = (), overrides: Sequence[str] = ()
) -> tuple[TrainConfig, list[str]]:
    """Load a configuration with its changes.

    Args:
        path: The configuration.
        files: Override files: paths, or names of presets under overrides/.
        overrides: Changes as "place=value".

    Returns:
        The configuration, and what the files changed as "place: before -> after".

    Raises:
        ConfigError: A file cannot be read, or the result is not a valid configuration.
    """
    changes = [change for file in files for change in expand(path, file)]
    changed = load_config(path, TrainConfig, [*changes, *overrides])
    return changed, deviations(path, changed, changes) if changes else []


def expand(path: Path, file: str) -> list[str]:
    """Return the changes of an override file as "place=value", with each * replaced by the list's places."""
    source = Path(file) if Path(file).suffix else presets.find(file, "overrides")
    whole = read_mapping(path)
    return [
        assignment(place, value)
        for pattern, value in read_mapping(source).items()
        for place in _places(str(pattern), whole, str(source))
    ]


def assignment(place: str, value: object) -> str:
    """Return a change as "place=value", as `--set` takes it."""
    return f"{place}={json.dumps(value, ensure_ascii=False)}"  # JSON is YAML


def _places(pattern: str, whole: dict[str, Any], where: str) -> list[str]:
    before, star, after = pattern.partition(".*")
    if not star:
        return [pattern]
    target = whole.get(before)
    if not isinstance(target, list):
        raise ConfigError(f"{where}: {pattern!r}: {before} is not a list in the configuration")
    return [f"{before}.{index}{after}" for index in range(len(target))]


def deviations(path: Path, changed: Config, changes: Sequence[str]) -> list[str]:
    """Return where `changed` differs from the file and its defaults.

    If the file alone is not a valid configuration, the changes themselves are returned."""
    try:
        written = load_config(path, type(changed))
    except ConfigError:
        return list(changes)
    return list(_differences(written.model_dump(mode="json"), changed.model_dump(mode="json"), ""))


def _differences(before: Any, after: Any, place: str) -> Iterator[str]:
    """Yield each place at which two trees of plain values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(before.get(key), after.get(key), inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from _differences(left, right, f"{place}.{index}")
    elif before != after:
        yield f"{place}: {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
