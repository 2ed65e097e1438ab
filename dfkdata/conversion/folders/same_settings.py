"""Check that folders are of one kind before they are merged: one layout, schema, prompt and set of rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.conversion import settings
from dfkdata.conversion.options import ConvertOptions

FREE = (
    *("delimiter", "encoding", "sheet", "header_row", "hub_config", "hub_split", "where", "limit", "sample"),
    *("seed", "validation", "test", "split_column", "stratify", "split", "max_samples", "subsample"),
    *("materialize", "paths", "balance"),
)
"""Settings that say how rows were read, chosen, divided or written, and not what a row is; they may differ."""


def check_same(folders: Sequence[Path], configs: Sequence[dict[str, Any]], accept: Collection[str]) -> None:
    """Raise `ConfigError` if a setting differs that says what a row is.

    Args:
        folders: The folders, for the message.
        configs: The settings in their manifests.
        accept: Options of `dfkdata convert`, without dashes, whose settings may differ.
    """
    known = {settings.option_of(name) for name in ConvertOptions.model_fields}
    for name in accept:
        if name == "to":
            raise ConfigError("--accept to: one folder holds one layout; convert again with one --to")
        if name not in known:
            raise ConfigError(
                f"--accept {name}: no option of dfkdata convert; names are {', '.join(sorted(known))}"
            )
    accepted = {*accept} | ({"option"} if "from" in accept else set())  # options belong to the format
    free = {settings.option_of(name) for name in FREE}
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        found = [
            (name, before, now)
            for name, before, now in settings.differences(configs[0], config)
            if name.partition(" ")[0] not in accepted | free
        ]
        if found:
            raise _differing(folders[0], folder, found)


def _differing(first: Path, second: Path, found: list[settings.Difference]) -> ConfigError:
    clauses = [
        f"{name} is {settings.shown(before)} there and {settings.shown(now)} here"
        for name, before, now in found
    ]
    names = list(dict.fromkeys(name.partition(" ")[0] for name, _, _ in found))
    way = " ".join(f"--accept {name}" for name in names if name != "to")
    if "to" in names:
        out = "convert one of them again with the --to of the other"
    else:
        out = f"if rows of both kinds may lie in one folder: {way}; otherwise convert one of them again"
    return ConfigError(f"{second}: not converted as {first} was: {'; '.join(clauses)}; {out}")


def common(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that all folders have in common, in the order of the first."""
    return {
        name: value
        for name, value in configs[0].items()
        if all(name in config and config[name] == value for config in configs[1:])
    }
