"""Audit our code and our pins: `make audit`, which runs this in an environment of its own.

bandit reads the three packages (what it is told to leave out, and why, stands in pyproject.toml). pip-audit asks the
vulnerability service of the package index about every pin of constraints/cpu.txt. Without a network, or with an index
that has no such service, that part is skipped with a line that says so. Exits with 1 if anything was found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints/cpu.txt"
PACKAGES = ("dfkdata", "dfkeval", "dfktrain")
SECONDS = 120


def code() -> int:
    """Return how many packages bandit complains about, 0 or 1; it prints what it finds."""
    words = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *PACKAGES]
    done = subprocess.run(words, cwd=ROOT, check=False)
    sys.stdout.write(f"bandit: {'something was found' if done.returncode else 'nothing found'}\n")
    return int(done.returncode != 0)


def pins() -> int:
    """Return the number of pins with a known vulnerability."""
    words = [
        sys.executable,
        "-m",
        "pip_audit",
        "--no-deps",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "-f",
        "json",
    ]
    try:
        done = subprocess.run(
            [*words, "-r", str(PINS)], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        told = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return skipped(f"no answer in {SECONDS} s")
    except (ValueError, KeyError):
        return skipped(done.stderr.strip().rpartition("\n")[2] or "no answer")
    asked = [each for each in told if "skip_reason" not in each]
    if not asked:
        return skipped(f"the index says nothing about any of {len(told)} pins")
    found = [each for each in asked if each["vulns"]]
    for each in found:
        ids = ", ".join(fault["id"] for fault in each["vulns"])
        sys.stdout.write(f"pip-audit: {each['name']} {each['version']}: {ids}\n")
    unknown = ", ".join(each["name"] for each in told if "skip_reason" in each)
    sys.stdout.write(
        f"pip-audit: {len(asked)} pins asked, {len(found)} with faults; unknown: {unknown or 'none'}\n"
    )
    return len(found)


def skipped(reason: str) -> int:
    """Say that the pins were not audited."""
    sys.stdout.write(f"pip-audit: skipped: {reason}\n")
    return 0


if __name__ == "__main__":
    sys.exit(bool(code() + pins()))
