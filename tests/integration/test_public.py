"""The package: light to import, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_importing_the_package_loads_no_engine() -> None:
    code = (
        "import sys, dfkeval, dfkeval.evaluation.evaluate, dfkeval.cli.app; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'PIL', 'datasets', 'peft')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_loaded() -> None:
    import dfkeval as package

    assert package.__all__
    assert [name for name in package.__all__ if getattr(package, name) is None] == []
    assert callable(package.compare)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
