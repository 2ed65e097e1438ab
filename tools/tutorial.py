"""Run the commands of docs/tutorial.md in an empty folder and write what they print below them.

    python -m tools.tutorial

A block that opens with "```console" holds commands, each behind "$ ", and what each prints on a terminal,
progress aside. `exit=1` behind the word names the exit status that its commands end with; without it they end with 0.
It takes about three minutes."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"

#: What the commands are told of the terminal.
TERMINAL = {"COLUMNS": "100", "TERM": "xterm", "NO_COLOR": "1"}
_BLOCK = re.compile(r"^```console(?: exit=(\d))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One command of the page.

    Attributes:
        command: The command, as typed.
        output: What the page shows below it.
        status: The exit status that the page names.
    """

    command: str
    output: str
    status: int = 0


def steps(text: str) -> list[Step]:
    """Return the commands of a page in order."""
    return [step for match in _BLOCK.finditer(text) for step in _steps(match)]


def _steps(match: re.Match[str]) -> list[Step]:
    parts = re.split(r"^\$ ", match[2], flags=re.MULTILINE)[1:]
    pairs = [part.partition("\n") for part in parts]
    return [Step(command, output, int(match[1] or 0)) for command, _, output in pairs]


def rewritten(text: str, run: Callable[[Step], str]) -> str:
    """Return the page with what `run` returns for each step below its command."""

    def block(match: re.Match[str]) -> str:
        opening = match[0].partition("\n")[0]
        body = "".join(f"$ {step.command}\n{run(step).rstrip()}\n" for step in _steps(match))
        return f"{opening}\n{re.sub(chr(10) + '{2,}', chr(10) * 2, body)}```"

    return _BLOCK.sub(block, text)


def _in(folder: Path) -> Callable[[Step], str]:
    def run(step: Step) -> str:
        sys.stderr.write(f"$ {step.command}\n")
        root = str(PAGE.parents[1])
        environment = os.environ | TERMINAL | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            shlex.split(step.command), cwd=folder, env=environment, stdout=theirs, stderr=subprocess.DEVNULL
        ) as process:
            os.close(theirs)
            printed = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        if process.returncode != step.status:
            raise SystemExit(f"exit status {process.returncode} instead of {step.status}: {step.command}")
        return shown(printed.decode(), folder)

    return run


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the last writer has gone
        return b""


def shown(printed: str, folder: Path) -> str:
    """Return what a command printed as the page shows it: without colours, the folder's path
    and blanks at the ends of lines."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    lines = plain.replace("\r\n", "\n").replace(f"{folder}/", "").splitlines()
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        PAGE.write_text(
            rewritten(PAGE.read_text(encoding="utf-8"), _in(Path(place).resolve())), encoding="utf-8"
        )
