"""One process at a time writes into an output, and nothing of the lock stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dfkdata.common.errors import ConfigError
from dfkdata.common.locks import LOCK, alone

HOLD = """
import sys
from pathlib import Path
from dfkdata.common.locks import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_told_what_to_do_and_a_kill_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "out" / LOCK
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with (
        pytest.raises(ConfigError, match="out: another merge writes into it; wait for it or give another"),
        alone(lock, "merge"),
    ):
        pass
    assert lock.exists(), "the refused process leaves the other's lock"
    holder.kill()
    holder.wait()
    with alone(lock):
        assert lock.exists()
    assert not lock.parent.exists(), "a folder that stayed empty goes"


def test_a_folder_with_files_and_a_lock_beside_a_file_stay_tidy(tmp_path: Path) -> None:
    with alone(tmp_path / "out" / LOCK):
        (tmp_path / "out" / "a.txt").touch()
    assert [*(tmp_path / "out").iterdir()] == [tmp_path / "out" / "a.txt"]
    with alone(tmp_path / "p.jsonl.lock"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), alone(tmp_path / "out" / LOCK):
            raise ValueError("inside")


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"), alone(tmp_path / "file" / "out" / LOCK):
        pass
