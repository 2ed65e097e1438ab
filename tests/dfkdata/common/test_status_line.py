"""A silent command says on a terminal what it does; nothing else does, and no thread is left."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from dfkdata.common import status_line
from dfkdata.common.console import say, write
from dfkdata.common.progress import Progress
from dfkdata.common.status_line import STATUS, now


class Terminal(io.StringIO):
    """A terminal that says when something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.wrote = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.wrote.set()
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(status_line, "SILENT", 0.0)
    monkeypatch.setattr(status_line, "TICK", 0.001)
    return stream


def test_silence_is_filled_and_the_line_goes_before_the_next_one(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with STATUS.running("starts", terminal):
        now("loads the model")
        assert terminal.wrote.wait(30)
        monkeypatch.setattr(sys, "stderr", terminal)
        say("done")
    said = terminal.getvalue()
    assert said.startswith("\r  loads the model  0 s")
    line = said[: said.index("done")].rsplit("\r", 2)
    assert line[1].strip() == "" and line[2] == "", "the line is wiped before anything else is written"
    assert not STATUS.is_running


def test_an_open_progress_line_is_not_written_over(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        STATUS.running("starts", terminal),
        Progress("rows", stream=terminal, clock=iter((0.0, 9.0)).__next__) as bar,
    ):
        bar(1)
        before = terminal.getvalue()
        threading.Event().wait(0.05)
        assert terminal.getvalue() == before


def test_logs_and_pipes_get_no_line_and_no_thread() -> None:
    stream = io.StringIO()
    threads = threading.active_count()
    with STATUS.running("starts", stream):
        assert threading.active_count() == threads and not STATUS.is_running
    assert stream.getvalue() == ""


def test_a_line_that_is_begun_and_a_command_that_waits_are_left_alone(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer comes word by word, and a person types: nothing is written between."""
    monkeypatch.setattr(sys, "stdout", terminal)
    with STATUS.running("starts", terminal):
        for begin in (lambda: write("half a line"), lambda: (write("a line\n"), now(""))):
            begin()
            before = terminal.getvalue()
            threading.Event().wait(0.05)
            assert terminal.getvalue() == before
        now("answers")
        terminal.wrote.clear()
        assert terminal.wrote.wait(30)
