"""Versions of installed packages, and how to compare them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.version import Version

#: Packages on which the answers and the training of a model depend.
MODEL_PACKAGES = ("dfk", "torch", "transformers", "peft", "tokenizers", "pillow", "numpy")


def installed_version(package: str) -> str | None:
    """Return the version of a distribution, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return package -> version in the given order, without those that are not installed."""
    versions = {package: installed_version(package) for package in packages}
    return {package: version for package, version in versions.items() if version is not None}


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare with others: "2.13.0+cpu" gives (2, 13, 0).

    Raises:
        packaging.version.InvalidVersion: `version` does not follow PEP 440.
    """
    return Version(version).release
