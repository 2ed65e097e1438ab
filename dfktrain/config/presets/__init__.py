"""The presets that ship: training configurations, and override files in `overrides/`.

In a checkout they are also found under `configs/`. `init` copies a preset as it is, comments included, and
overwrites nothing; only the commands at its head name the new file."""

from __future__ import annotations

import itertools
from pathlib import Path

from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion

FOLDER = Path(__file__).parent


def names(kind: str = "") -> list[str]:
    """Return the names of the presets of a kind, sorted: "" for training, or "overrides"."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.yaml"))


def find(name: str, kind: str = "") -> Path:
    """Return the file of a preset; raise `ConfigError` that lists the names if there is no such preset."""
    known = names(kind)
    if name not in known:
        what = f"{kind} preset".strip()
        near = suggestion(name, known)
        raise ConfigError(f"no {what} is called {name!r}{near} (known: {', '.join(known)})")
    return FOLDER / kind / f"{name}.yaml"


def write(name: str, out: Path) -> str:
    """Write the preset to `out` and return its text, whose head names that file.

    Raises:
        ConfigError: `out` exists, or there is no such preset.
    """
    text = find(name).read_text(encoding="utf-8")
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    text = head.replace(f" {name}.yaml", f" {out.name}") + text.removeprefix(head)
    if out.exists():
        raise ConfigError(f"{out} exists already; name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return text


def header(text: str) -> str:
    """Return the comment at the head of a preset, without comment marks."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def headline(name: str) -> str:
    """Return the first sentence of a preset's head."""
    first = header(find(name).read_text(encoding="utf-8")).splitlines()[0]
    return first.partition(" (docs/")[0].rstrip(".")
