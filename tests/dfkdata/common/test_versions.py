"""Versions are compared by their numbers."""

from __future__ import annotations

import pytest

from dfkdata.common.versions import installed_version, installed_versions, release


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("2.13.0+cpu", (2, 13, 0)),
        ("5.24.0.dev0", (5, 24, 0)),
        ("2.14.0rc1", (2, 14, 0)),
        ("2026.10.7", (2026, 10, 7)),
    ],
)
def test_a_version_gives_its_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert release(version) == numbers


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert [*installed_versions(("pydantic", "no-such-package-at-all", "msgspec"))] == ["pydantic", "msgspec"]
    assert installed_version("no-such-package-at-all") is None
