"""Speed and memory of `dfkdata convert`: CPU seconds in one process, ratios within one run.

    python bench/convert.py [--rows 200000] [--out FILE.json] [--skip datasets,images]
    python bench/convert.py --against FOLDER [--only messages] [--share 0.1] [--instructions]

Three ways turn the same Alpaca rows (about 650 bytes each) into messages, each in a process of its own:
  leanest   orjson (msgspec where it is not installed): decode, build a dict, encode; no checks at all
  datasets  load_dataset + map + to_json, no checks
  dfkdata   convert(): checks, duplicates, split, quarantine, manifest
Peak RSS is what the operating system says of the finished process. A fourth part audits JPEG files.

`--against` compares this tree with that of another commit (`git worktree add FOLDER COMMIT`) on inputs of every
kind, each conversion in a process of its own, in turn, and says which files of rows differ."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from convert_kinds import KINDS, compare, large_pictures, measure

LEANEST = """
import sys
try:
    import orjson; loads, dumps = orjson.loads, orjson.dumps
except ImportError:
    import msgspec; loads, dumps = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
with open(sys.argv[1], "rb") as source, open(sys.argv[2] + ".jsonl", "wb") as target:
    for line in source:
        row = loads(line)
        text = row["instruction"].strip()
        if row.get("input"):
            text += "\\n\\nInput:\\n" + row["input"].strip()
        turns = [{"role": "user", "content": [{"type": "text", "text": text}]},
                 {"role": "assistant", "content": [{"type": "text", "text": row["output"].strip()}]}]
        target.write(dumps({"messages": turns}) + b"\\n")
"""

DATASETS = """
import sys, tempfile
import datasets
datasets.disable_progress_bars()
def turns(row):
    text = row["instruction"].strip()
    if row.get("input"):
        text += "\\n\\nInput:\\n" + row["input"].strip()
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]},
                         {"role": "assistant", "content": [{"type": "text", "text": row["output"].strip()}]}]}
with tempfile.TemporaryDirectory() as cache:
    rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=cache)
    rows.map(turns, remove_columns=rows.column_names).to_json(sys.argv[2] + ".jsonl")
"""

DFKDATA = """
import sys
from dfkdata import convert
summary = convert(sys.argv[1], sys.argv[2], format="alpaca", validation=0.1)
assert summary.rows["out"] > 0
"""

IMAGES = """
import sys, time
from pathlib import Path
from dfkdata.media import audit
paths = [str(path) for path in sorted(Path(sys.argv[1]).iterdir())]
for path in paths: audit(path)
start = time.process_time()
for _ in range(5):
    for path in paths: audit(path)
print(5 * len(paths) / (time.process_time() - start))
"""


def measured(code: str, source: Path, target: Path) -> dict[str, float]:
    """Return CPU seconds (user and system) and peak RSS in MB of one process."""
    environment = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1"}
    cpu, peak = measure([sys.executable, "-c", code, str(source), str(target)], environment)
    return {"cpu_s": round(cpu, 3), "rss_mb": round(peak, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--skip", default="")
    parser.add_argument(
        "--against", type=Path, help="folder of another tree, which this one is compared with"
    )
    parser.add_argument("--only", default="", help="a part of the names of the kinds to compare")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows of each kind to compare")
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind")
    asked = parser.parse_args()
    if asked.against is None:
        found = contenders(asked.rows, asked.repeat, asked.skip.split(","))
    else:
        trees = {"here": Path(__file__).parents[1].resolve(), "there": asked.against.resolve()}
        found = compare(trees, asked.only, asked.share, asked.repeat, asked.instructions)
    if asked.out:
        asked.out.write_text(json.dumps({"rows": asked.rows, "found": found}, indent=2) + "\n")


def contenders(rows: int, repeat: int, skipped: list[str]) -> dict[str, dict[str, float]]:
    """Print and return what each way takes for the same rows."""
    ways = {"leanest": LEANEST, "datasets": DATASETS, "dfkdata": DFKDATA}
    ways = {name: code for name, code in ways.items() if name not in skipped}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = KINDS["alpaca"].write(Path(folder) / "input", rows)
        print(f"{rows} rows, {source.stat().st_size / 1e6:.1f} MB; best CPU of {repeat}")
        for turn in range(repeat):
            for name, code in ways.items():
                one = measured(code, source, Path(folder) / f"{name}{turn}")
                if name not in found or one["cpu_s"] < found[name]["cpu_s"]:
                    found[name] = one
        if "images" not in skipped:
            (Path(folder) / "images").mkdir()
            large_pictures(Path(folder) / "images", 100)
            command = [sys.executable, "-c", IMAGES, str(Path(folder) / "images")]
            speed = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            size = (Path(folder) / "images" / "0.jpg").stat().st_size
            found["images"] = {"per_s": round(speed), "kB": round(size / 1000)}
    for name, one in found.items():
        print(f"{name:10}", one)
    for name in ("leanest", "datasets"):
        if name in found:
            print(f"dfkdata / {name}: {found['dfkdata']['cpu_s'] / found[name]['cpu_s']:.2f} x CPU")
    return found


if __name__ == "__main__":
    main()
