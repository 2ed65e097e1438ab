"""Write a page about a converted data set: labels, lengths, rejects, near duplicates, overlap, rows with pictures.

Guarantees:
    - One file that loads nothing; every text of the data is escaped.
    - A row is shown sign for sign: what all rows begin with, once, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.conversion.output_folder import Folder
from dfkdata.conversion.splits import SPLITS
from dfkdata.pages import Look, Words
from dfkdata.reports import survey as surveys
from dfkdata.reports.row_part import PAGE, rows_part, script
from dfkdata.reports.row_text import ModelView, row_texts
from dfkdata.reports.survey import Row, Survey

ROWS = 96
"""Rows that a page shows unless told otherwise."""


def write_card(
    folder: Path,
    path: Path,
    *,
    samples: int = ROWS,
    view: ModelView | None = None,
    lang: str = "en",
    redact: bool = False,
) -> Path:
    """Write the page about a finished conversion to the messages layout.

    Args:
        folder: The folder that `convert` wrote.
        path: HTML file to write.
        samples: How many rows to show with their pictures, chosen by the hash of their ids.
        view: The model that the rows are for; None shows them as they are written.
        lang: Language of the page's words, "en" or "id".
        redact: Whether personal data is masked and pictures are blurred.

    Returns:
        `path`.

    Raises:
        ConfigError: `folder` holds no finished conversion to the messages layout.
    """
    manifest = Folder(folder).manifest()
    if manifest is None or manifest["config"].get("to") != "messages":
        raise ConfigError(
            f"{folder}: no finished conversion to the messages layout; dfkdata convert writes one"
        )
    look = Look(lang, redact=redact)
    splits = [name for name in SPLITS if (folder / f"{name}.jsonl").exists()]
    warnings = surveys.lines_of(folder / "warnings.jsonl")
    pairs = surveys.near_pairs(warnings)
    shown = pairs[: surveys.MOST_PAIRS]
    found = surveys.survey(folder, splits, samples, {place for pair in shown for place in pair[:2]})
    title = look.w("data.title", name=folder.resolve().name)
    body = look.render(
        "dfkdata.reports",
        "card.html",
        title=title,
        head=_head(manifest, splits, look.w),
        facts=_facts(manifest, look.w),
        banners=_banners(manifest, look.w),
        splits=_splits(manifest, splits, look.w),
        labels=_labels(manifest, splits),
        histograms=_histograms(found, look.w),
        problems=_problems(manifest, folder, warnings, look.w),
        near=_near(shown, found),
        n_near=len(pairs),
        overlap=_overlap(manifest, look.w),
        rows=rows_part(
            found.chosen, row_texts([row for _, row in found.chosen], view), [*manifest["labels"]]
        ),
        n_rows=manifest["rows"]["out"],
        view=view,
        page=PAGE,
    )
    names = ("splits", "sizes", "problems", "near", "rows")
    nav = [(name, look.w(f"data.{name}")) for name in names if name != "near" or pairs]
    path.write_text(look.document(title, body, nav=nav, scripts=[script()]), encoding="utf-8")
    return path


def _written(manifest: Mapping[str, Any], split: str) -> int:
    return next((int(entry["rows"]) for entry in manifest["outputs"] if entry["path"] == f"{split}.jsonl"), 0)


def _head(manifest: Mapping[str, Any], splits: Sequence[str], w: Words) -> list[str]:
    """Return the rows as a sentence: written, what became of the others, and each split."""
    rows = manifest["rows"]
    lost = [
        w(f"data.{name}", n=rows[key])
        for name, key in (("rejected", "quarantined"), ("duplicates", "duplicates"), ("left_out", "left_out"))
        if rows.get(key)
    ]
    read = ", ".join([w("data.head_read", n=rows["in"]), *lost])
    return [w("data.head", n=rows["out"]), read, *(f"{_written(manifest, name):,} {name}" for name in splits)]


def _facts(manifest: Mapping[str, Any], w: Words) -> list[tuple[str, str]]:
    config, images = manifest["config"], manifest.get("images") or {}
    facts = {
        "format": config.get("format", ""),
        "pictures": f"{images['count']:,}" if images.get("count") else "",
        "inputs": ", ".join(Path(entry["path"]).name for entry in manifest["inputs"][:4]),
        "seed": str(config.get("seed", "")),
    }
    return [(w(f"data.{name}"), text) for name, text in facts.items() if text]


def _banners(manifest: Mapping[str, Any], w: Words) -> list[tuple[str, str]]:
    overlap = manifest.get("overlap")
    if overlap is None:
        return []
    shared = [f"{n:,} {w(f'data.{_word(kind)}')}" for kind, n in overlap.items() if n]
    if shared:
        return [("warn", w("data.overlap_some", what=", ".join(shared)))]
    held_out = any(_written(manifest, name) for name in SPLITS if name != "train")
    return [("good", w("data.overlap_none"))] if held_out else []


def _word(kind: str) -> str:
    return "pictures_shared" if kind == "pictures" else kind


def _overlap(manifest: Mapping[str, Any], w: Words) -> list[tuple[str, str]]:
    return [(w(f"data.{_word(kind)}"), f"{n:,}") for kind, n in (manifest.get("overlap") or {}).items()]


def _splits(
    manifest: Mapping[str, Any], splits: Sequence[str], w: Words
) -> tuple[list[str], dict[str, list[int]]]:
    return list(splits), {w("data.rows_unit"): [_written(manifest, name) for name in splits]}


def _labels(
    manifest: Mapping[str, Any], splits: Sequence[str]
) -> list[tuple[str, list[str], dict[str, list[int]]]]:
    """Return (field, labels, split -> counts), the most frequent label first."""
    charts = []
    for name, counts in manifest["labels"].items():
        known = [split for split in splits if counts.get(split)]
        totals: dict[str, int] = {}
        for split in known:
            for label, number in counts[split].items():
                totals[label] = totals.get(label, 0) + number
        labels = sorted(totals, key=lambda label: -totals[label])
        if labels:
            series = {split: [counts[split].get(label, 0) for label in labels] for split in known}
            charts.append((name, labels, series))
    return charts


def _histograms(found: Survey, w: Words) -> list[tuple[str, list[float], str]]:
    sides = [float(max(size)) for size in found.sizes]
    shapes = [width / height for width, height in found.sizes if height]
    charts = [
        (w("data.prompt_length"), found.prompts, w("data.characters")),
        (w("data.answer_length"), found.answers, w("data.characters")),
        (w("data.side"), sides, w("data.pixels")),
        (w("data.shape"), shapes, w("data.ratio")),
    ]
    return [chart for chart in charts if chart[1]]


def _problems(
    manifest: Mapping[str, Any], folder: Path, warnings: Sequence[Row], w: Words
) -> list[tuple[str, list[list[str]], list[tuple[str, list[Row]]]]]:
    """Return (heading, rows of a table of rules, rule -> examples) of rejects and of warnings."""
    parts = []
    sources = (
        ("quarantined", "codes", surveys.lines_of(folder / "quarantine.jsonl")),
        ("warnings",) * 2 + (warnings,),
    )
    for heading, key, lines in sources:
        entries = sorted(manifest[key].items(), key=lambda entry: -entry[1]["count"])
        table = [
            [code, f"{entry['count']:,}", f"{entry['first']['source']}: {entry['first']['reason']}",
             entry["first"].get("hint", "")]
            for code, entry in entries
        ]  # fmt: skip
        examples = [
            (code, [line for line in lines if line["code"] == code][: surveys.MOST_EXAMPLES])
            for code, _ in entries
        ]
        parts.append((w(f"data.{heading}"), table, [entry for entry in examples if entry[1]]))
    return parts


def _near(pairs: Sequence[tuple[str, str, list[str]]], found: Survey) -> list[dict[str, Any]]:
    """Return pairs of rows with their places and the last question of each."""
    shown = []
    for row, partner, codes in pairs:
        sides = [(place, found.wanted[place]) for place in (row, partner) if place in found.wanted]
        if len(sides) == 2:
            shown.append(
                {
                    "codes": codes,
                    "sides": [(place, side["images"], _question(side)) for place, side in sides],
                }
            )
    return shown


def _question(row: Row) -> str:
    """Return the last question, less its first part if that is the instruction of the schema."""
    asked = next((turn for turn in reversed(row["messages"]) if turn["role"] == "user"), None)
    texts = [part["text"] for part in (asked or {}).get("content") or () if part["type"] == "text"]
    return "\n".join(texts[1:] if len(texts) > 1 and row.get("meta", {}).get("schema") else texts)
