"""Public names load on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dfkdata
import dfkeval
import dfktrain


@pytest.mark.parametrize("package", [dfkdata, dfkeval, dfktrain])
def test_every_public_name_loads_and_is_listed(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names) == dir(package)
    for name in names:
        assert getattr(package, name) is vars(package)[name], "kept, so that the next use is a plain look-up"
    with pytest.raises(AttributeError, match=r"module .* has no attribute 'no_such_name'"):
        package.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_packages_imports_no_home_of_a_name() -> None:
    code = "import dfkdata, dfkeval, dfktrain, sys; print([m for m in sys.modules if m.startswith('dfk')])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "dfkdata.common.lazy" in modules and "conversion" not in modules and "training" not in modules
