"""What every test keeps to: the user's own state folder is a temporary one, and no folder stays allowed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfkdata.common import media_roots


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What dfk remembers of its own files lies in a temporary folder, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_end() -> None:
    """SIGINT and SIGHUP end what tests start, also where the suite is a job of the background that ignores them."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A file is durable at once: no test cuts the power, and a disk takes milliseconds for each file.

    `tests/dfkdata/common/test_jsonl.py` shows that files are made durable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """HTTP clients read one certificate and not all of the world's, which takes 20 ms for each client."""
    try:
        import certifi
    except ImportError:
        yield
        return
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(autouse=True)
def no_new_media_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that a test allows are not allowed to the next one."""
    monkeypatch.setattr(media_roots, "_allowed", list(media_roots.allowed()))
