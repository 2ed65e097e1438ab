"""The table of `generate_gpu.py`, its bars last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pieces
import train_gpu

WHAT = {
    "A1": "model.generate, batch 1, data order",
    "A4": "model.generate, batch 4, data order",
    "B": "model.generate, batch 64, sorted by length",
    "C": "transformers' continuous batching, rows of text",
    "D": "dfkeval, static batching",
    "E": "dfkeval, continuous batching",
    "E-warm": "the same in a new process, with the caches that E left",
    "E2": "the same on two cards",
    "step": "model.generate, decode steps alone",
    "Estep": "continuous batching, decode steps alone",
    "Echeck": "continuous batching, its numbers",
}


def table(work: Path) -> str:
    """Return the table of all results in Markdown."""
    found = pieces.read_results(work)
    card = found.get("card", {})
    lines = [
        f"{card.get('name', '?')}, {card.get('bandwidth', 0) / 1e12:.2f} TB/s; {card.get('versions')}",
        "",
    ]
    lines.append(
        "| | ready s | first answer s | samples/s | steady | tokens/s | steady | GiB | answered | note |"
    )
    lines.append("|---" * 10 + "|")
    for name, what in WHAT.items():
        one = found.get(f"generate-{name}", {})
        if not one or name in ("step", "Estep", "Echeck"):
            continue
        note = [one[key] for key in ("failed", "note") if key in one]
        note += [f"{one['wrong_length']} of another length"] if one.get("wrong_length") else []
        note += [f"step of {rows}: {ms:.1f} ms" for rows, ms in one.get("step_ms", {}).items() if ms]
        numbers = [train_gpu.number(one.get(key), digits) for key, digits in (
            ("ready_s", 1), ("first_answer_s", 1), ("samples_per_s", 2), ("steady_samples_per_s", 2),
            ("tokens_per_s", 0), ("steady_tokens_per_s", 0), ("peak_gib", 1), ("answers", 0))]  # fmt: skip
        lines.append(f"| {name} {what} | " + " | ".join(numbers) + f" | {'; '.join(note)} |")
    if "generate-V" in found:
        lines.append(f"| V vLLM {'| - ' * 8}| {found['generate-V'].get('failed')} |")
    for piece in ("step", "Estep"):
        for rows, one in found.get(f"generate-{piece}", {}).get("steps", {}).items():
            bound, took = one["bound_ms"], one["step_ms"]
            share = f"{100 * bound / took:.0f} %" if bound and took else "-"
            lines.append(f"\n{WHAT[piece]}, {rows} rows: {took} ms; memory-bound limit {bound} ms ({share})")
            if one.get("own_products_step_ms"):
                own = one["own_products_step_ms"]
                share = f"{100 * bound / own:.0f} %" if bound else "-"
                lines.append(f"    with the tiles that won: {own} ms ({share})")
            for name, (calls, ms) in one.get("kernels", {}).items():
                lines.append(f"    {ms:8.2f} ms {calls:6} x {name}")
    for piece, names in (
        ("Estep", ("attention", "prefill", "products")), ("Echeck", ("texts", "logits")),
        *((name, ("imported_s", "loaded_s", "firsts_s", "again", "rft", "rft_top_p")) for name in ("E", "E-warm")),
        ("E2", ("cards", "times")),
    ):  # fmt: skip
        one = found.get(f"generate-{piece}", {})
        lines += [f"\n{WHAT[piece]}, {name}: {json.dumps(one[name])}" for name in names if name in one]
    return "\n".join([*lines, "", *_bars(found)])


def _bars(found: dict[str, Any]) -> list[str]:
    """Return the bars with what was measured, the last lines of the table."""
    ours = found.get("generate-E-warm", {}) or found.get("generate-E", {})
    again = ours.get("again", {}).get("samples_per_s") or ours.get("steady_samples_per_s")
    lines = []
    for name, bar in (("A4", 40), ("D", 10)):
        other = found.get(f"generate-{name}", {})
        rate = other.get("steady_samples_per_s") or other.get("samples_per_s")
        times = f"{again / rate:.0f}x" if again and rate else "not measured"
        lines.append(
            f"bar: >= {bar}x {name} in samples/s: {times} ({train_gpu.number(again, 1)} / {train_gpu.number(rate, 2)})"
        )
    for rows, one in found.get("generate-Estep", {}).get("steps", {}).items():
        took = min(each for each in (one.get("step_ms"), one.get("own_products_step_ms")) if each)
        if one.get("bound_ms"):
            lines.append(f"bar: >= 50 % of the limit at {rows} rows: {100 * one['bound_ms'] / took:.0f} %")
    if "starts" in found:
        lines.append(f"start of a process, seconds since it began: {json.dumps(found['starts'])}")
    lines.append(f"bar: first answer within 20 s, warm: {train_gpu.number(ours.get('first_answer_s'), 1)} s")
    drawn, static = ours.get("rft", {}).get("samples_per_s"), found.get("generate-D", {})
    slow = static.get("steady_samples_per_s") or static.get("samples_per_s")
    if drawn:
        before = f"{4000 / slow:.0f} s by D's rate" if slow else "D not measured"
        lines.append(f"rft, 1,000 rows x 4 draws: {4000 / drawn:.0f} s from 125 rows x 4; before: {before}")
    lines.append(f"bar: two cards >= 1.9x: {train_gpu.number(found.get('generate-E2', {}).get('times'), 2)}")
    return lines
