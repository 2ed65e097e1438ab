"""Processes of their own that start in milliseconds, although they need torch and transformers.

A new interpreter takes seconds of processor time to import these. A fork server imports them once a test
session; every process that a test starts is a fork of it: its own memory, its own environment, and a real
process to a signal. Tests of how a command starts use a new interpreter instead."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.context import ForkServerProcess as Process
from pathlib import Path

from dfkdata.common import media_roots

PRELOADED = ["tests.helpers.preloaded"]


def context() -> ForkServerContext:
    """Return the fork server of this test session; it starts with the first process."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def start(code: str, arguments: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start `code` as the main module of a new process.

    Args:
        code: Python source.
        arguments: What the code finds in `sys.argv[1:]`, as text.
        log: File that takes what the process prints and its traceback.
        env: Variables that are set on top of this process's environment.

    Returns:
        The running process. `join` waits for it; `exitcode` is negative if a signal ended it.
    """
    environment = dict(os.environ) | dict(env or {})
    words = [str(word) for word in arguments]
    process = context().Process(target=_run, args=(code, words, str(log), environment, media_roots.allowed()))
    process.start()
    return process


COMMAND = """
import importlib, os, sys
os.chdir(sys.argv[1])
sys.path.insert(0, ".")
sys.argv = sys.argv[2:]
importlib.import_module(sys.argv[0] + ".cli.app").main()
"""


def command(words: Sequence[object], folder: Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run one of our commands in `folder`, from which it also imports.

    Args:
        words: "dfkdata", "dfkeval" or "dfktrain" and its arguments.
        folder: Where it runs.
        env: Variables that are set on top of this process's environment.

    Returns:
        Its exit code and what it printed.
    """
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        process = start(COMMAND, [folder, *words], log, env)
        process.join()
        return int(process.exitcode or 0), log.read_text(encoding="utf-8")


def _run(
    code: str, arguments: list[str], log: str, environment: dict[str, str], roots: Sequence[str]
) -> None:
    with open(log, "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor is wanted)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    media_roots.allow(roots)
    exec(compile(code, "<test>", "exec"), {"__name__": "__main__"})
