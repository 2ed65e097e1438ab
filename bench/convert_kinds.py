"""Seeded inputs of every kind that `dfkdata convert` reads, and two trees of the source compared on them.

A kind is one input file and the options of its conversion; `KINDS` names them all. `bench/convert.py --against`
prints the comparison."""

from __future__ import annotations

import csv
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

WORDS = """pemerintah akan membangun jalan baru di kota besar tahun ini karena banjir sering terjadi dan warga
meminta bantuan segera menurut laporan media nasional yang belum dapat dipastikan kebenarannya
oleh pihak berwenang""".split()

CONVERT = """
import json, sys
from dfkdata import convert
summary = convert(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
assert summary.rows["out"] > 0
"""


def say(pick: random.Random, words: int) -> str:
    return " ".join(pick.choices(WORDS, k=words))


def instruction(pick: random.Random, number: int) -> dict[str, Any]:
    """Draw a row of Alpaca: 40 % with input, 25 % with line breaks and quotes, 10 % with accents."""
    row = {
        "instruction": f"{number}. {say(pick, 24)}",
        "input": say(pick, 24) if pick.random() < 0.4 else "",
        "output": say(pick, 50),
    }
    if pick.random() < 0.25:
        row["output"] = row["output"].replace(" warga ", '\n"warga" ')
    if pick.random() < 0.1:
        row["output"] += " é “kata” – ñ"
    return row


def claim(pick: random.Random, number: int) -> dict[str, Any]:
    label = pick.choice(("Disinformasi", "Fitnah", "Ujaran Kebencian", "Netral"))
    output = f"Label: **{label}.** penjelasan: {say(pick, 30)}"
    return {
        "instruction": "Periksa.",
        "input": f"{number} {say(pick, 30)}",
        "output": output,
        "_label": label,
    }


def post(pick: random.Random, number: int) -> dict[str, Any]:
    """Draw one of two posts of a link; a fiftieth has another label than the link's other."""
    labels = ("disinformasi", "Fitnah", "ujaran kebencian", "netral")
    label = labels[(number // 2 + (pick.random() < 0.02)) % 4]
    more = {"link": f"https://example.org/{number // 2}", "title": say(pick, 8), "text": say(pick, 20)}
    return more | {"img_path": f"pictures/{number % 500}.jpg", "label": label, "analisis": say(pick, 30)}


def turns(pick: random.Random, number: int) -> dict[str, Any]:
    asked, answered = f"{number}. {say(pick, 24)}", say(pick, 50)
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}


def long_chat(pick: random.Random, number: int) -> dict[str, Any]:
    """Draw a system turn and three questions with answers."""
    chat = [{"role": "system", "content": "Jawab singkat."}]
    for at in range(3):
        chat += [{"role": "user", "content": f"{number}.{at} {say(pick, 12)}"}]
        chat += [{"role": "assistant", "content": say(pick, 24)}]
    return {"messages": chat}


def speakers(pick: random.Random, number: int) -> dict[str, Any]:
    asked, answered = (turn["content"] for turn in turns(pick, number)["messages"])
    return {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]}


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "day": {"type": ["string", "null"]},
                "n": {"type": "integer"},
            },
            "required": ["city"],
        },
    },
}


def tool_chat(pick: random.Random, number: int) -> dict[str, Any]:
    arguments = {"city": say(pick, 2), "n": number}
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    asked = {"role": "user", "content": f"{number} {say(pick, 12)}"}
    return {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}], "tools": [TOOL]}


def question(pick: random.Random, number: int) -> dict[str, Any]:
    """Draw a question about a picture of its own."""
    return {
        "question": f"{number} {say(pick, 6)}",
        "image": f"pictures/{number}.jpg",
        "answer": say(pick, 12),
    }


def write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        first = next(rows)
        table = csv.DictWriter(file, list(first))
        table.writeheader()
        table.writerow(first)
        table.writerows(rows)


def write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=5_000)


def small_pictures(folder: Path, count: int) -> None:
    """Draw 64 x 64 pixels, each other."""
    from PIL import Image

    for number in range(count):
        colour = (number % 256, number // 256 % 256, 90)
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.jpg", quality=60)


def exif_pictures(folder: Path, count: int) -> None:
    """Draw 64 x 64 pixels with Exif, two fifths of them turned."""
    from PIL import Image

    for number in range(count):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = (1, 1, 6, 8, 1)[number % 5], "Maker"
        colour = (number % 256, number // 256 % 256, 90)
        Image.new("RGB", (64, 64), colour).save(folder / f"{number}.jpg", quality=60, exif=exif)


def large_pictures(folder: Path, count: int) -> None:
    """Draw 1080 x 1350 pixels of noise, each other."""
    from PIL import Image

    noise = Image.effect_noise((1080, 1350), 30).convert("RGB")
    for number in range(count):
        noise.paste((number % 255, number // 255, 60), (0, 0, 300, 300))
        noise.save(folder / f"{number}.jpg", quality=30)


@dataclass(frozen=True)
class Kind:
    """Say how an input is written and converted: `rows` in full, pictures if it has some."""

    draw: Callable[[random.Random, int], dict[str, Any]]
    options: dict[str, Any]
    rows: int
    suffix: str = ".jsonl"
    pictures: Callable[[Path, int], None] | None = None

    def write(self, folder: Path, rows: int) -> Path:
        """Write the input into `folder` and return its path."""
        folder.mkdir(parents=True)
        path = folder / f"rows{self.suffix}"
        writers = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}
        pick = random.Random(7)
        writers[self.suffix](path, (self.draw(pick, number) for number in range(rows)))
        if self.pictures is not None:
            (folder / "pictures").mkdir()
            self.pictures(folder / "pictures", 500 if self.draw is post else rows)
        return path


KINDS = {
    "start: 10 rows": Kind(instruction, {"format": "alpaca"}, 10),
    "dfk_text, CSV": Kind(claim, {"format": "dfk_text"}, 30_000, ".csv"),
    "alpaca, CSV": Kind(instruction, {"format": "alpaca"}, 100_000, ".csv"),
    "dfk_csv with pictures": Kind(post, {"format": "dfk_csv"}, 15_000, ".csv", small_pictures),
    "alpaca": Kind(instruction, {"format": "alpaca"}, 100_000),
    "alpaca, Parquet": Kind(instruction, {"format": "alpaca"}, 60_000, ".parquet"),
    "messages": Kind(turns, {"format": "messages"}, 60_000),
    "messages, Parquet": Kind(turns, {"format": "messages"}, 40_000, ".parquet"),
    "messages, 7 turns": Kind(long_chat, {"format": "messages"}, 20_000),
    "messages to swift": Kind(turns, {"format": "messages", "to": "swift"}, 40_000),
    "swift": Kind(turns, {"format": "swift"}, 60_000),
    "sharegpt": Kind(speakers, {"format": "sharegpt"}, 60_000),
    "tool calls": Kind(tool_chat, {"format": "messages"}, 40_000),
    "vqa, small JPEG": Kind(question, {"format": "vqa"}, 2_000, pictures=small_pictures),
    "vqa, small JPEG with Exif": Kind(question, {"format": "vqa"}, 2_000, pictures=exif_pictures),
    "vqa, large JPEG": Kind(question, {"format": "vqa"}, 300, pictures=large_pictures),
}


def measure(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return CPU seconds (user and system) and the peak RSS in MB of one process."""
    child = subprocess.Popen(command, env=_environment(environment), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"a measured process failed: {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a measured process, which may keep what it compiled."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | more


def instructions(command: list[str], environment: dict[str, str]) -> int:
    """Return how many instructions a process takes, which does not depend on what else the machine does."""
    with tempfile.TemporaryDirectory() as folder:
        counting = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", *command]
        said = subprocess.run(
            counting, env=_environment(environment), capture_output=True, text=True, check=True
        ).stderr
    return int(said.rpartition("Collected :")[2].split()[0])


def different_files(one: Path, other: Path) -> list[str]:
    """Return the names of the files of rows that two conversions wrote differently."""
    pairs = [(path, other / path.name) for path in sorted(one.glob("*.jsonl"))]
    return [a.name for a, b in pairs if b.exists() and not filecmp.cmp(a, b, shallow=False)]


def compare(trees: dict[str, Path], only: str, share: float, repeat: int, counted: bool) -> dict[str, Any]:
    """Print for each kind what the trees take, and return it.

    Args:
        trees: Name -> folder of the source; the first is compared with the second.
        only: A part of the kinds' names.
        share: Of each kind's rows.
        repeat: How often each is measured, in turn; the least counts.
        counted: Whether instructions are counted (valgrind), else CPU seconds.
    """
    found: dict[str, Any] = {}
    unit = "G instructions" if counted else "s"
    print(
        f"| kind | rows | {' | '.join(f'{name}, {unit}' for name in trees)} | ratio | peak MB | files that differ |"
    )
    print("|---|---|" + "---|" * (len(trees) + 3))
    for name, kind in KINDS.items():
        if only in name:
            found[name] = one = _compared(kind, max(10, round(kind.rows * share)), trees, repeat, counted)
            costs = " | ".join(f"{cost:.3f}" for cost in one["cost"])
            peaks = " and ".join(f"{peak:.1f}" for peak in one["peak_mb"])
            print(
                f"| {name} | {one['rows']:,} | {costs} | {one['ratio']:.3f} | {peaks} | {', '.join(one['differ'])} |",
                flush=True,
            )
    return found


def _own(tree: Path, folder: Path) -> dict[str, str]:
    """Return the variables of processes that run `tree`; what they compile is kept in `folder`."""
    cache = {"PYTHONPYCACHEPREFIX": str(folder / "cache")}
    return cache | {"PYTHONPATH": str(tree), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}


def _compared(kind: Kind, rows: int, trees: dict[str, Path], repeat: int, counted: bool) -> dict[str, Any]:
    costs: list[list[float]] = [[] for _ in trees]
    peaks: list[list[float]] = [[] for _ in trees]
    with tempfile.TemporaryDirectory() as folder:
        for tree in trees.values():
            measure([sys.executable, "-P", "-c", "from dfkdata import convert"], _own(tree, Path(folder)))
        with get_context("spawn").Pool(1) as pool:  # a process inherits the peak of the one that starts it
            source = pool.apply(kind.write, (Path(folder) / "input", rows))
        for turn in range(repeat):
            order = [*enumerate(trees.values())]
            for at, tree in order if turn % 2 else reversed(order):
                out = Path(folder) / f"out{at}"
                shutil.rmtree(out, ignore_errors=True)
                command = [
                    sys.executable,
                    "-P",
                    "-c",
                    CONVERT,
                    str(source),
                    str(out),
                    json.dumps(kind.options),
                ]
                environment = _own(tree, Path(folder))
                cost, peak = measure(command, environment)
                if counted:
                    shutil.rmtree(out)
                    cost = instructions(command, environment) / 1e9
                costs[at].append(cost)
                peaks[at].append(peak)
        differ = different_files(Path(folder) / "out0", Path(folder) / "out1")
    best = [min(each) for each in costs]
    least = [round(min(each), 1) for each in peaks]
    return {"rows": rows, "cost": best, "ratio": best[0] / best[1], "peak_mb": least, "differ": differ}
