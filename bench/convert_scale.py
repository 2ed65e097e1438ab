"""What `dfkdata convert --workers` costs and gains, as ratios in one run.

    python bench/convert_scale.py --repeat 3

For each kind of input: one process without shards, one worker through shards, two workers; the files of all three are
compared. Two numbers tell the gain. `wall` needs two free cores. `by CPU` does not: it is the CPU time of one worker
through shards over that of the way which two workers cannot share, the process that plans and merges, and half of
what the workers take."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from convert_kinds import KINDS, different_files

CONVERT = """
import json, resource, sys, time
from dfkdata import convert
began = time.monotonic()
convert(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
def used(who):
    found = resource.getrusage(who)
    return found.ru_utime + found.ru_stime, found.ru_maxrss * 1024 / 1e6
here, there = used(resource.RUSAGE_SELF), used(resource.RUSAGE_CHILDREN)
names = ("wall", "own", "workers", "mb", "worker_mb")
print(json.dumps(dict(zip(names, (time.monotonic() - began, here[0], there[0], here[1], there[1])))))
"""
WAYS = {"whole": {}, "one": {"workers": 1}, "two": {"workers": 2}}
CHOSEN = (
    "alpaca",
    "dfk_text, CSV",
    "dfk_csv with pictures",
    "tool calls",
    "vqa, small JPEG",
    "vqa, large JPEG",
)


def measured(source: Path, out: Path, options: dict[str, object]) -> dict[str, float]:
    """Return seconds of wall and CPU, and peaks in MB, of one conversion in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", CONVERT, str(source), str(out), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(said)


def compared(name: str, share: float, repeat: int) -> dict[str, float | bool]:
    """Return the ratios of one kind of input; the best of `repeat` counts for each way."""
    kind = KINDS[name]
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = kind.write(folder / "input", max(10, round(kind.rows * share)))
        for _ in range(repeat):
            for way, more in WAYS.items():
                found = measured(source, folder / way, kind.options | more)
                before = best.setdefault(way, found)
                best[way] = {key: min(value, before[key]) for key, value in found.items()}
        manifests = {(folder / way / "manifest.json").read_bytes() for way in WAYS}
        differ = [
            *different_files(folder / "whole", folder / "one"),
            *different_files(folder / "whole", folder / "two"),
        ]
    whole, one, two = (best[way] for way in WAYS)
    return {
        "rows": round(kind.rows * share),
        "whole_cpu_s": whole["own"],
        "one_cpu_s": one["own"],
        "two_cpu_s": two["own"] + two["workers"],
        "merge_cpu_s": two["own"],
        "one_to_whole": one["own"] / whole["own"],
        "two_wall": one["wall"] / two["wall"],
        "two_by_cpu": one["own"] / (two["own"] + two["workers"] / 2),
        "worker_mb": two["worker_mb"],
        "merge_mb": two["mb"],
        "whole_mb": whole["mb"],
        "same": len(manifests) == 1 and not differ,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows of each kind")
    parser.add_argument("--only", default="", help="a part of the names of the kinds")
    asked = parser.parse_args()
    print(
        "| input | rows | whole, CPU s | one worker / whole | two workers, wall | by CPU | of it alone, s | MB | same |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in CHOSEN:
        if asked.only in name:
            one = compared(name, asked.share, asked.repeat)
            print(
                f"| {name} | {one['rows']:,} | {one['whole_cpu_s']:.2f} | {one['one_to_whole']:.2f} | "
                f"{one['two_wall']:.2f}x | {one['two_by_cpu']:.2f}x | {one['merge_cpu_s']:.2f} | "
                f"{one['whole_mb']:.0f}, worker {one['worker_mb']:.0f}, merge {one['merge_mb']:.0f} | {one['same']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
