"""Count the text tokens of a row with the `tokenizer.json` of the model that is to be trained.

How it works. Texts and tool arguments are counted. What a chat template adds and what pictures cost is not,
so leave some room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError, missing_package


def counter(path: str) -> Callable[[dict[str, Any]], int]:
    """Return a function that gives the number of text tokens of a canonical row.

    Args:
        path: A tokenizer.json, or the folder that holds it.

    Raises:
        ConfigError: If the file or the package `tokenizers` is missing.
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ConfigError(f"{file}: no tokenizer.json; give the file or the folder of a model")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing_package("--tokenizer", "tokenizers", "hf") from error
    tokenizer = Tokenizer.from_file(str(file))

    def count(row: dict[str, Any]) -> int:
        return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in _texts(row))

    return count


def _texts(row: dict[str, Any]) -> list[str]:
    texts = [
        part["text"] for message in row["messages"] for part in message["content"] if part["type"] == "text"
    ]
    calls = [call["function"] for message in row["messages"] for call in message.get("tool_calls", ())]
    return texts + [msgspec.json.encode(item).decode() for item in (*calls, *row.get("tools", ()))]
