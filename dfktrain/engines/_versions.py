"""Versions of the installed packages, and which of them do not work, alone or together.

The rules come from reading and running the named releases; each says what to install instead."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

from dfkdata.common.versions import MODEL_PACKAGES, installed_versions, release

PACKAGES = (
    *MODEL_PACKAGES, "accelerate", "safetensors", "torchvision", "unsloth", "unsloth_zoo", "trl",
    "flash-linear-attention", "fla-core", "causal-conv1d", "triton", "tilelang", "bitsandbytes", "deepspeed",
)  # fmt: skip
"""Packages that can change a training run."""

UNSLOTH_ONLY = ("unsloth", "unsloth_zoo", "trl")
"""Packages that only the engine unsloth imports; their faults do not stop another engine."""

UNSLOTH_LIMITS = {"transformers": "5.17.0", "trl": "1.15.0"}
"""Newest releases that the tested releases of Unsloth accept."""

UNSLOTH_TORCH = "2.15"
"""First torch that the tested releases of Unsloth refuse."""


@dataclass(frozen=True)
class PackageVersion:
    """One installed package.

    Attributes:
        package: Its name.
        version: Its version.
        fault: Why this version does not work with the other installed packages; None if it does.
        stops: Whether the run would use the package, so that the fault stops it.
    """

    package: str
    version: str
    fault: str | None = None
    stops: bool = False


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of every installed package that can change a training run."""
    return {"python": platform.python_version(), **installed_versions(PACKAGES)}


def check_versions(engine: str = "transformers") -> list[PackageVersion]:
    """Return the installed packages that a run on `engine` depends on, each with its fault if it has one."""
    versions = package_versions()
    faults = {package: fault(package, versions) for package in versions}
    used = [package for package in versions if engine == "unsloth" or package not in UNSLOTH_ONLY]
    return [
        PackageVersion(
            package, version, faults[package], stops=faults[package] is not None and package in used
        )
        for package, version in versions.items()
    ]


def fault(package: str, versions: Mapping[str, str]) -> str | None:
    """Return why `package` does not work with the other `versions`, None if it does."""
    version = versions[package]
    numbers = release(version)
    match package:
        case "torch" if numbers < (2, 9):
            return f"torch {version} is too old; install torch>=2.9"
        case "transformers" if not (5, 17) <= numbers < (5, 24):
            return f"transformers {version} is untested; install transformers>=5.17,<5.24"
        case "peft" if not (0, 21) <= numbers < (0, 22):
            return f"peft {version} is untested; install peft>=0.21,<0.22"
        case "unsloth":
            return _fault_of_unsloth(versions)
        case "trl" if numbers == (1, 15, 0) and not _has_gpu():
            return f"trl {version} cannot train on a CPU (its head needs Triton); install trl!=1.15.0"
        case "flash-linear-attention" | "fla-core" if not _has_gpu():
            return f"{package} crashes without a GPU (transformers binds it when imported); uninstall it here"
        case _:
            return None


def _fault_of_unsloth(versions: Mapping[str, str]) -> str | None:
    for package, newest in UNSLOTH_LIMITS.items():
        version = versions.get(package, "0")
        if release(version) > release(newest):
            return (
                f"unsloth {versions['unsloth']} needs {package}<={newest}, found {version}; install that one"
            )
    return None


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
