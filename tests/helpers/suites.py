"""Find public test data that is too large for the repository."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest


def suite(name: str) -> Path:
    """Return the folder `name` in $DFK_SUITES, else beside the repository in `../shared/suites`; without it the
    test is skipped."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "suites"
    folder = Path(os.environ.get("DFK_SUITES") or beside) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder


def package_data(package: str, folder: str) -> Path:
    """Return a folder inside an installed package, which is not imported; without it the test is skipped."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        pytest.skip(f"the package {package} is not installed")
    return Path(places[0]) / folder
