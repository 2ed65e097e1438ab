"""Resume predictions and labels only if they are made as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError
from dfkdata.common.json_files import read_json, write_json

#: What is added to an output's name for the record of how it was made.
RECORD = ".run.json"


def begin(out: Path, record: dict[str, Any], begun: bool) -> None:
    """Write beside `out`, a file or folder, how it is made.

    Args:
        out: The output.
        record: What decides its contents, as JSON types.
        begun: Whether the output holds results already.

    Raises:
        ConfigError: Those results were made in another way.
    """
    path, now = out.with_name(out.name + RECORD), msgspec.json.decode(msgspec.json.encode(record))
    before = read_json(path) if begun and path.exists() else now
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise ConfigError(
            f"{out}: was begun with another {', '.join(changed)}; give another --out, or remove it"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, now)
