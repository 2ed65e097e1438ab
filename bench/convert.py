"""Speed and memory of `dfkdata convert`: CPU seconds in one process, ratios within one run.

    python bench/convert.py [--rows 200000] [--out FILE.json] [--skip datasets,images]

Three ways turn the same Alpaca rows (about 650 bytes each) into messages, each in a process of its own:
  leanest   orjson (msgspec where it is not installed): decode, build a dict, encode; no checks at all
  datasets  load_dataset + map + to_json, no checks
  dfkdata   convert(): checks, duplicates, split, quarantine, manifest
Peak RSS is what the operating system says of the finished process. A fourth part audits JPEG files."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = """pemerintah akan membangun jalan baru di kota besar tahun ini karena banjir sering terjadi dan warga
meminta bantuan segera menurut laporan media nasional yang belum dapat dipastikan kebenarannya
oleh pihak berwenang"""
WORDS = TEXT.split()

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


def write_rows(path: Path, count: int) -> None:
    """Seeded Indonesian-like rows: 40 % with input, 25 % with line breaks and quotes, 10 % with accents."""
    pick = random.Random(7)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "instruction": f"{number}. " + " ".join(pick.choices(WORDS, k=24)),
                "input": " ".join(pick.choices(WORDS, k=24)) if pick.random() < 0.4 else "",
                "output": " ".join(pick.choices(WORDS, k=50)),
            }
            if pick.random() < 0.25:
                row["output"] = row["output"].replace(" warga ", '\n"warga" ')
            if pick.random() < 0.1:
                row["output"] += " é “kata” – ñ"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(code: str, source: Path, target: Path) -> dict[str, float]:
    """CPU seconds (user + system, children of this call only) and peak RSS in MB of one process."""
    command = [sys.executable, "-c", code, str(source), str(target)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1"}
    start = time.perf_counter()
    child = subprocess.Popen(command, env=environment)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"a measured process failed: {status}")
    return {
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "wall_s": round(time.perf_counter() - start, 3),
        "rss_mb": round(used.ru_maxrss * 1024 / 1e6, 1),
    }


def write_images(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir()
    noise = Image.effect_noise((1080, 1350), 30).convert("RGB")
    for number in range(count):
        noise.paste((number % 255, 90, 60), (0, 0, 300, 300))
        noise.save(folder / f"{number}.jpg", quality=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--skip", default="")
    asked = parser.parse_args()
    ways = {"leanest": LEANEST, "datasets": DATASETS, "dfkdata": DFKDATA}
    ways = {name: code for name, code in ways.items() if name not in asked.skip.split(",")}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        write_rows(source, asked.rows)
        print(f"{asked.rows} rows, {source.stat().st_size / 1e6:.1f} MB; best CPU of {asked.repeat}")
        for turn in range(asked.repeat):
            for name, code in ways.items():
                one = measure(code, source, Path(folder) / f"{name}{turn}")
                if name not in found or one["cpu_s"] < found[name]["cpu_s"]:
                    found[name] = one
        if "images" not in asked.skip.split(","):
            write_images(Path(folder) / "images", 100)
            command = [sys.executable, "-c", IMAGES, str(Path(folder) / "images")]
            speed = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            size = (Path(folder) / "images" / "0.jpg").stat().st_size
            found["images"] = {"per_s": round(speed), "kB": round(size / 1000)}
    for name, one in found.items():
        print(f"{name:10}", one)
    for name in ("leanest", "datasets"):
        if name in found:
            print(f"dfkdata / {name}: {found['dfkdata']['cpu_s'] / found[name]['cpu_s']:.2f} x CPU")
    if asked.out:
        asked.out.write_text(json.dumps({"rows": asked.rows, "found": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
