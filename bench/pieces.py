"""Run the pieces of a benchmark one by one, each in a process of its own with a time limit.

How it works: a piece writes WORK/results/NAME.json when it is done, and may write NAME.partial.json while it
works. A piece that ends otherwise, or runs out of time, leaves NAME.failed.json with the last lines of its
log. A piece with a result or a failure is not run again, so a benchmark that was cut off goes on where it
stopped. This module needs the standard library only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGAN = "DFK_BENCH_BEGAN"
"""Environment variable: when the process of a piece was started, in seconds since the epoch."""


@dataclass(frozen=True)
class Piece:
    """One process.

    name: of its files. arguments: what the script is called with besides --work. seconds: time limit.
    cache: folder below WORK/caches where Triton, fla and torch keep what they tuned and compiled.
    empty_cache: empty that folder first. skip: why the piece cannot run here, None if it can. peer: whether it sees
    the packages in WORK/site-peers, which only others need, and which cost time to import where they are seen."""

    name: str
    arguments: tuple[str, ...]
    seconds: int
    cache: str = "shared"
    empty_cache: bool = False
    skip: str | None = None
    peer: bool = False


_IMPORTED = time.time()


def began() -> float:
    """Return when this process was started, in seconds since the epoch."""
    return float(os.environ.get(BEGAN, _IMPORTED))


def run_all(script: Path, work: Path, pieces: Sequence[Piece], minutes: float, retry: bool = False) -> None:
    """Run the pieces that have no result yet, in order, until `minutes` are over."""
    (work / "results").mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    for piece in pieces:
        if retry:
            (work / f"results/{piece.name}.failed.json").unlink(missing_ok=True)
        if finished(work, piece.name):
            continue
        left = end - time.monotonic()
        if piece.skip is not None:
            _fail(work, piece.name, piece.skip, 0.0)
            print(f"{piece.name}: not run: {piece.skip}", flush=True)
        elif left < 0.5 * piece.seconds:
            print(f"{piece.name}: not started, {left:.0f} s are left", flush=True)
        else:
            _run(script, work, piece, int(min(piece.seconds, left)))


def finished(work: Path, name: str) -> bool:
    """Return whether the piece has a result or has failed."""
    return any((work / f"results/{name}.{end}").is_file() for end in ("json", "failed.json"))


def read_results(work: Path) -> dict[str, dict[str, Any]]:
    """Return name -> what the piece found; "failed" says why it has no whole result."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((work / "results").glob("*.json")):
        name, _, kind = path.name.removesuffix(".json").partition(".")
        content = json.loads(path.read_text(encoding="utf-8"))
        found[name] = content if not kind else found.get(name, {}) | content
    return found


def write_result(work: Path, name: str, found: dict[str, Any], partial: bool = False) -> None:
    """Write the piece's JSON file, whole or not at all."""
    (work / "results").mkdir(parents=True, exist_ok=True)
    path = work / f"results/{name}{'.partial' if partial else ''}.json"
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(found, indent=1), encoding="utf-8")
    scratch.replace(path)


def unpack_wheels(folder: Path, site: Path) -> None:
    """Unpack every wheel of `folder` into `site`, once. A wheel is a ZIP file of what pip would install."""
    mark = site / "unpacked.txt"
    names = sorted(path.name for path in folder.glob("*.whl"))
    if mark.is_file() and mark.read_text().split() == names:
        return
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    for name in names:
        with zipfile.ZipFile(folder / name) as wheel:
            wheel.extractall(site)
    mark.write_text("\n".join(names))


def files_below(folder: Path) -> int:
    """Return how many files a cache holds."""
    return sum(path.is_file() for path in folder.rglob("*"))


def _run(script: Path, work: Path, piece: Piece, seconds: int) -> None:
    cache = work / "caches" / piece.cache
    if piece.empty_cache:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(script), "--work", str(work), *piece.arguments]
    words += ["--piece", piece.name, "--seconds", str(seconds)]
    start = time.monotonic()
    log = work / f"results/{piece.name}.log"
    with log.open("w", encoding="utf-8") as out:
        code = _wait(words, _environment(work, cache, piece.peer), out, seconds)
    took = time.monotonic() - start
    if code == 0 and (work / f"results/{piece.name}.json").is_file():
        (work / f"results/{piece.name}.partial.json").unlink(missing_ok=True)
        print(f"{piece.name}: done in {took:.0f} s", flush=True)
        return
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    why = f"over {seconds} s" if code is None else f"exit status {code}: {lines[-1][:300] if lines else ''}"
    _fail(work, piece.name, why, took)
    print(f"{piece.name}: FAILED after {took:.0f} s: {why}", flush=True)
    for line in lines[-6:]:
        print(f"    {line[:200]}", flush=True)


def _wait(words: list[str], environment: dict[str, str], out: Any, seconds: int) -> int | None:
    """Return the exit status, or None if the time was over and the process and its children were killed."""
    process = subprocess.Popen(words, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _environment(work: Path, cache: Path, peer: bool) -> dict[str, str]:
    places = [
        *([str(work / "site-peers")] if peer else []),
        str(work / "site"),
        str(Path(__file__).resolve().parent.parent),
        os.environ.get("PYTHONPATH", ""),
    ]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TRITON_CACHE_AUTOTUNING": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        BEGAN: str(time.time()),
    }


def _fail(work: Path, name: str, why: str, seconds: float) -> None:
    path = work / f"results/{name}.failed.json"
    path.write_text(json.dumps({"failed": why, "failed_after_s": round(seconds, 1)}), encoding="utf-8")
