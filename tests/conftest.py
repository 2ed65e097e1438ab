"""What every test keeps to: the user's own state folder is a temporary one, nothing is left to other modules."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common import media_roots, plugins

VARIABLES = (
    "HOME", "PATH", "PYTHONPATH", "XDG_STATE_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES",
    "HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "OPENAI_API_KEY", "SERVER_KEY", "TRITON_INTERPRET",
    "DFK_MODEL", "DFK_WORK",
)  # fmt: skip
"""What tests or commands read; libraries set others."""


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


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module ends with the process as it began: a worker goes on with modules of any other folder."""
    before = _process_wide()
    yield
    after = _process_wide()
    changed = [f"{name}: {before[name]!r} became {after[name]!r}" for name in before.keys() & after.keys()
               if before[name] != after[name]]  # fmt: skip
    assert not changed, f"{request.node.nodeid} leaves behind: " + "; ".join(changed)


def _process_wide() -> dict[str, Any]:
    """Return what tests of other modules would notice; libraries set variables of their own, which none reads."""
    state: dict[str, Any] = {
        "allowed folders": [*media_roots.allowed()],
        "trusted plug-ins": {*plugins._trusted},
        "current folder": Path.cwd(),
    }
    state |= {f"environment {name}": os.environ.get(name) for name in VARIABLES}
    if "torch" in sys.modules:
        state["threads of torch"] = sys.modules["torch"].get_num_threads()
    if "dfkeval.models.families" in sys.modules:
        state["model families"] = [*sys.modules["dfkeval.models.families"].FAMILIES]
    return state


@pytest.fixture(autouse=True)
def nothing_new_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and plug-ins that a test allows are not allowed to the next one."""
    monkeypatch.setattr(media_roots, "_allowed", list(media_roots.allowed()))
    monkeypatch.setattr(plugins, "_trusted", set(plugins._trusted))
