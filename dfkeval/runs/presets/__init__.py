"""Evaluation configurations that ship with the package, one YAML file each.

A preset is named as its file and opens with a comment that says whose numbers it repeats. `dfkeval init
NAME` copies one to edit; in a checkout they are also seen as `configs/eval/`."""

from __future__ import annotations

from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    """Return the YAML of a preset. Raises `ConfigError` that lists all if there is none of this name."""
    if name not in names():
        raise ConfigError(
            f"{name!r} is not a preset{suggestion(name, names())} (presets: {', '.join(names())})"
        )
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def about(name: str) -> str:
    """Return the first line of a preset, which says what it is for."""
    return text(name).splitlines()[0].removeprefix("#").strip()


def write(name: str, out: Path) -> Path:
    """Copy a preset to `out`, a YAML file or a folder, and return its path.

    Raises:
        ConfigError: There is no preset of this name, the file exists, or it cannot be written.
    """
    content = text(name)
    path = out if out.suffix in (".yaml", ".yml") else out / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: is there already; give another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another --out") from error
    return path
