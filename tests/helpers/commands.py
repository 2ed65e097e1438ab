"""Run the `dfktrain` command in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dfktrain.cli import app


def called(monkeypatch: Any, capsys: Any, *words: Any) -> tuple[int, str, str]:
    """Run `dfktrain WORDS` and return (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["dfktrain", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
