"""How many bytes a row the commands of an evaluation hold at their peak, from two sizes of one fabricated run.

    python bench/memory.py [--rows 20000 100000] [--only run score compare report]

Each command runs in a process of its own over both sizes. The difference of the two peaks (resident memory), divided
by the difference of the rows, is what a row costs: what libraries take cancels out. `--folder` keeps the runs."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LABELS = ("netral", "disinformasi", "fitnah", "ujaran kebencian")
WORDS = (
    "kami di sini orang itu pergi rumah makan air jalan kota hari besar kecil merah hijau baru lama".split()
)
COMMANDS = ("run", "score", "compare", "report")


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def fabricate(folder: Path, count: int) -> None:
    """Write rows, and two sets of answers to them, of which one in fifty is no answer of the schema."""
    rng = random.Random(count)
    folder.mkdir(parents=True)
    with (folder / "rows.jsonl").open("w") as rows:
        files = [(folder / f"{name}.jsonl").open("w") for name in ("base", "tuned")]
        for index in range(count):
            gold = {"label": rng.choice(LABELS), "analisis": words(rng, 30)}
            text = f"{words(rng, 60)} {index}"
            turn = {"role": "user", "content": [{"type": "text", "text": text}]}
            meta = {"group": f"g{index}", "schema": "dfk_label", "variant": "claims", "gold": gold, "text": text,
                    "platform": rng.choice(("a", "b"))}  # fmt: skip
            rows.write(
                json.dumps({"id": f"row-{index}", "messages": [turn], "images": [], "meta": meta}) + "\n"
            )
            for file in files:
                answer = f"Label: {rng.choice(LABELS)}\n\nAnalisis: {words(rng, 30)}" if index % 50 else "?"
                file.write(json.dumps({"id": f"row-{index}", "text": answer}) + "\n")
        for file in files:
            file.close()
    for name in ("base", "tuned"):
        config = {"data": "rows.jsonl", "backend": {"kind": "scripted", "completions": f"{name}.jsonl"},
                  "metrics": ["validity", "labels", "rouge", "answers"], "resamples": 200}  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(config))


def peak(command: list[str], folder: Path) -> tuple[int, float]:
    """Return the peak of the resident memory of a command in bytes, and its seconds of CPU."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


def steps(name: str) -> list[list[str]]:
    """Return the command lines that a name stands for; only the last is measured."""
    tool = [sys.executable, "-m", "dfkeval"]
    if name == "run":
        return [[*tool, "run", f"{run}.yaml", "--out", f"run-{run}"] for run in ("base", "tuned")]
    if name == "score":
        return [[*tool, "score", "run-tuned"]]
    if name == "report":
        return [[*tool, "report", "run-tuned", "--against", "run-base"]]
    return [[*tool, "compare", "run-base", "run-tuned", "--html", "pair.html", "--csv", "pair.csv"]]


def measure(root: Path, sizes: list[int], chosen: list[str]) -> dict[str, Any]:
    peaks: dict[str, list[int]] = {name: [] for name in chosen}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for count in sizes:
        folder = root / str(count)
        if not folder.exists():
            fabricate(folder, count)
        for name in chosen:
            for command in steps(name):
                bytes_used, used = peak(command, folder)
            peaks[name].append(bytes_used)
            seconds[name].append(used)
    found = {}
    for name in chosen:
        a_row = (peaks[name][1] - peaks[name][0]) / (sizes[1] - sizes[0])
        found[name] = {"bytes_a_row": round(a_row), "peak_mb": [round(each / 1e6) for each in peaks[name]],
                       "cpu_seconds": [round(each, 1) for each in seconds[name]]}  # fmt: skip
        print(f"{name:8} {a_row:8,.0f} bytes a row, peaks {found[name]['peak_mb']} MB, "
              f"CPU {found[name]['cpu_seconds']} s", flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[20_000, 100_000])
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--folder", type=Path, help="where the runs are made and kept")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp())
    start = time.perf_counter()
    found = measure(root.resolve(), asked.rows, [name for name in COMMANDS if name in asked.only])
    print(f"{time.perf_counter() - start:.0f} s")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    if asked.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
