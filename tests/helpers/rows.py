"""Raw rows, and what conversions write of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def caption(number: int, **more: Any) -> dict[str, Any]:
    return {"caption": f"A dog number {number}.", "gold": {"subjects": [{"name": "dog"}]}, **more}


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows_of(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]
