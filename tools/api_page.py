"""Write docs/api.md from the docstrings of the public names: `python -m tools.api_page`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dfkdata.conversion.options import ConvertOptions

PAGE = Path(__file__).parents[1] / "docs" / "api.md"

#: Packages whose `__all__` is public; everything else may change between releases.
DOORS = {
    "dfkdata": "Convert raw data and read it back.",
    "dfkdata.schemas": "For authors of output schemas.",
    "dfkdata.formats": "For authors of raw formats.",
    "dfkeval": "Run, parse, score and compare.",
    "dfkeval.metrics": "For authors of metrics.",
    "dfkeval.backends": "For authors of backends.",
    "dfkeval.validators": "For authors of validators.",
    "dfktrain": "Train and merge.",
}
_HEAD = """# Public names

Import these names from the packages below; everything else is internal and may change between releases.
This page is written from the docstrings by `python -m tools.api_page`, and the tests run each example. How to
write your own formats, schemas, metrics and backends: [extending.md](extending.md).
"""
#: Functions that take the fields of a model as keywords, and that model.
OPTIONS: dict[str, type[BaseModel]] = {"convert": ConvertOptions}
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)


def public() -> Iterator[tuple[str, str, Any]]:
    """Yield (package, name, object) for every public name."""
    for package in DOORS:
        module = importlib.import_module(package)
        for name in sorted(module.__all__, key=str.lower):
            yield package, name, getattr(module, name)


def sections(value: Any) -> dict[str, str]:
    """Return the parts of an object's Google-style docstring; the part before the first heading is ""."""
    parts = _SECTION.split(inspect.getdoc(value) or "")
    return {"": parts[0].strip()} | dict(zip(parts[1::2], map(inspect.cleandoc, parts[2::2]), strict=True))


def _signature(name: str, value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return name
    return f"{name}{text}" if len(text) < 200 else f"{name}(…)"


def _items(text: str) -> str:
    """Return "name: meaning" entries as a list; their indented continuation lines are joined."""
    entries = re.split(r"\n(?=\S)", text)
    lines = []
    for entry in entries:
        name, colon, meaning = " ".join(entry.split()).partition(":")
        lines.append(
            f"- `{name}`:{meaning}" if colon and " " not in name.strip("*") else f"- {name}{colon}{meaning}"
        )
    return "\n".join(lines)


def _entry(name: str, value: Any) -> str:
    lines = [f"### {name}\n"]
    if not inspect.isclass(value) and not inspect.isroutine(value):  # an alias shows another type's docstring
        return f"### {name}\n\n```python\n{name} = {str(value).replace('typing.', '')}\n```\n"
    if callable(value):
        lines.append(f"```python\n{_signature(name, value)}\n```\n")
    for heading, text in sections(value).items():
        if heading == "Example":
            lines.append(f"```python\n{text}\n```\n")
        elif heading in ("Args", "Attributes", "Raises"):
            lines.append(f"{heading}:\n\n{_items(text)}\n")
        else:
            lines.append(f"{heading}: {text}\n" if heading else f"{text}\n")
    if name in OPTIONS:
        lines.append(_options(OPTIONS[name]))
    return "\n".join(lines)


def _options(model: type[BaseModel]) -> str:
    rows = ["Keywords:\n", "| name | meaning | default |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        default = "" if field.is_required() else f"`{field.default!r}`"
        rows.append(
            f"| `{field.alias or key}` | {(field.description or '').replace('|', '&#124;')} | {default} |"
        )
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the text of docs/api.md."""
    lines = [_HEAD]
    last = ""
    for package, name, value in public():
        if package != last:
            lines.append(f"## {package}\n\n{DOORS[package]}\n")
            last = package
        lines.append(_entry(name, value))
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
