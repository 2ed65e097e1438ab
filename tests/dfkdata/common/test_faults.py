"""A signal or the machine ends a command with one message and a status that programs understand."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from dfkdata.common import faults
from dfkdata.common.console import run_app


def ended(capsys: pytest.CaptureFixture[str], fault: BaseException, note: str = "") -> tuple[int, str]:
    def app(**_: object) -> None:
        if note:
            fault.add_note(note)
        raise fault

    with pytest.raises(SystemExit) as exit_:
        run_app(app, "dfkeval")
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on device; free some space"),
        (errno.EFBIG, "file too large; raise the limit"),
        (errno.EROFS, "read-only file system; name a folder that can be written"),
        (errno.EACCES, "permission denied; name one that you may use"),
        (errno.EMFILE, "too many open files; raise the limit"),
        (errno.EIO, "input/output error"),
    ],
)
def test_a_fault_of_the_machine_is_named_with_the_file_and_the_way_out(
    capsys: pytest.CaptureFixture[str], number: int, words: str
) -> None:
    status, said = ended(capsys, OSError(number, os.strerror(number), "out/a.json"), "out stays")
    assert status == 2
    assert said.startswith(f"dfkeval: out/a.json: {words}") and said.endswith("\nout stays\n")
    assert ended(capsys, OSError(number, os.strerror(number)))[1].startswith(f"dfkeval: {words}")


def test_an_error_that_the_system_did_not_raise_is_not_hidden() -> None:
    def app(**_: object) -> None:
        raise OSError("a fault of ours")

    with pytest.raises(OSError, match="a fault of ours"):
        run_app(app, "dfkeval")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(capsys: pytest.CaptureFixture[str], number: int) -> None:
    before, left = signal.getsignal(number), []

    def app(**_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        except Exception:  # noqa: BLE001 (a library's handler must not hold it)
            pytest.fail("the signal was held")
        finally:
            left.append("files are closed")

    with pytest.raises(SystemExit) as exit_:
        run_app(app, "dfktrain")
    assert exit_.value.code == 128 + number and left == ["files are closed"]
    assert capsys.readouterr().err == f"dfktrain: stopped by {signal.Signals(number).name}\n"
    assert signal.getsignal(number) == before


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with faults.stoppable():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_fork_dies_of_a_signal_as_any_process_does() -> None:
    with faults.stoppable():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_what_stays_is_said_with_the_names_of_the_command() -> None:
    @faults.leaves("{out} stays", when="out")
    def command(out: Path | None) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full") as full:
        command(out=Path("runs/a"))
    assert full.value.__notes__ == ["runs/a stays"]
    with pytest.raises(OSError, match="full") as full:
        command(out=None)
    assert not hasattr(full.value, "__notes__")


def test_private_lets_nobody_else_read_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    from dfkdata.common.console import keeping_private

    def command(out: Path) -> None:
        out.mkdir()
        (out / "rows.jsonl").write_text("{}")

    app = typer.Typer()
    app.command()(keeping_private(command))
    mask = os.umask(0o022)
    try:
        for name, words in (("open", []), ("closed", ["--private"])):
            with pytest.raises(SystemExit) as exit_:
                run_app(
                    lambda name=name, words=words, **options: app([str(tmp_path / name), *words], **options),
                    "x",
                )
            assert exit_.value.code == 0
        modes = [
            stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("open", "closed", "closed/rows.jsonl")
        ]
        assert modes == [0o755, 0o700, 0o600]
    finally:
        assert os.umask(mask) == 0o022
