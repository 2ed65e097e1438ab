"""Draw sample cards: what the model saw, what it wrote, what was read from it, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from dfkdata.common.data_uri import is_data_uri
from dfkdata.media.images import UnreadableImageError, thumbnail
from dfkeval.analysis.comparison import Change
from dfkeval.reports.formatting import agrees, compared, shown
from dfkeval.types import NOT_ANSWERED, OUTCOMES, Sample

THUMBNAIL = 200  # pixels, longest side
LONGEST = 4000  # characters of one text that are shown


def chosen(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Return at most `limit` samples in data order; every outcome has its share, right and wrong answers alike."""
    kinds: dict[tuple[str, bool | None], list[int]] = {}
    for index, sample in enumerate(samples):
        kinds.setdefault((sample.outcome, agrees(sample)), []).append(index)
    share = math.ceil(limit / max(1, len(kinds)))
    places = [place for members in kinds.values() for place in members[:share]]
    rest = [place for members in kinds.values() for place in members[share:]]
    return [samples[place] for place in sorted((places + rest)[:limit])]


def card(sample: Sample) -> str:
    """Return one sample as an `<article>`."""
    return (
        f'<article class="card"><header>{badges(sample)}<span class="id">{escape(sample.id)}</span></header>'
        f"{thumbnails(sample.images)}{_prompt(sample)}{answer(sample)}"
        f'<p class="label">Gold</p><pre>{escape(_cut(shown(sample.gold)))}</pre></article>'
    )


def turn(change: Change) -> int:
    """Return 2 for an answer that became wrong, 1 for one that became right, else 0."""
    before, after = (agrees(sample) is True for sample in (change.before, change.after))
    return 0 if before == after else 1 + before


def pair_card(change: Change, a: str, b: str) -> str:
    """Return one sample before and after."""
    columns = "".join(
        f'<div><p class="label">{escape(name)}</p><p class="chips">{badges(sample)}</p>{answer(sample)}</div>'
        for name, sample in ((a, change.before), (b, change.after))
    )
    return (
        f'<article class="card pair"><header><span class="id">{escape(change.id)}</span></header>'
        f'{thumbnails(change.before.images)}{_prompt(change.before)}<div class="columns">{columns}</div>'
        f'<p class="label">Gold</p><pre>{escape(_cut(shown(change.before.gold)))}</pre></article>'
    )


def badges(sample: Sample) -> str:
    """Return badges of the outcome and of whether the answer is right."""
    name, meaning = sample.outcome, escape(OUTCOMES[sample.outcome])
    outcome = f'<span class="badge {kind(name)}" title="{meaning}">{name}</span>'
    what = _compared(sample)
    match agrees(sample):
        case True:
            return outcome + f'<span class="badge good">{what}as gold</span>'
        case False if sample.value is not None:
            return outcome + f'<span class="badge bad">{what}not as gold</span>'
        case _:
            return outcome


def _compared(sample: Sample) -> str:
    """Return the fields that were compared if there are others too, so that other prose is not called right."""
    names = compared(sample)
    return "" if len(names) == len(sample.gold or {}) else escape(", ".join(names)) + " "


def kind(outcome: str) -> str:
    """Return the CSS class of an outcome."""
    if outcome == "ok":
        return "good"
    if outcome in NOT_ANSWERED or outcome == "no_gold":
        return "none"
    return "warn" if outcome == "repaired" else "bad"


def answer(sample: Sample) -> str:
    """Return the raw text, the parsed dict, and what is wrong with it."""
    value: Any = sample.value if sample.value is not None else sample.lenient
    title = "Parsed" if sample.value is not None or sample.lenient is None else "Parsed after repairs"
    notes = [*sample.problems, *(f"repair: {name}" for name in sample.repairs)]
    text = escape(_cut(sample.text)) or "(nothing)"
    return (
        f'{_reasoning(sample)}<p class="label">Answer, verbatim</p><pre>{text}</pre>'
        f'<p class="label">{title}</p><pre>{escape(_cut(shown(value)))}</pre>{_list(notes)}'
    )


def _prompt(sample: Sample) -> str:
    return (
        f"<details><summary>Prompt</summary><pre>{escape(_cut(sample.prompt))}</pre></details>"
        if sample.prompt
        else ""
    )


def _reasoning(sample: Sample) -> str:
    return (
        f"<details><summary>Reasoning</summary><pre>{escape(_cut(sample.reasoning))}</pre></details>"
        if sample.reasoning and sample.reasoning.strip()
        else ""
    )


def _list(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(_cut(note, 300))}</li>" for note in notes)
    return f'<ul class="problems">{items}</ul>' if items else ""


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"


def thumbnails(images: Iterable[str]) -> str:
    """Return the pictures as data URIs; one that cannot be read is named instead."""
    shown_images = "".join(_thumbnail(image, _changed(image)) for image in images)
    return f'<div class="thumbs">{shown_images}</div>' if shown_images else ""


def _changed(image: str) -> int:
    """Return when the file was written, so that a new picture is read again; 0 if there is no file."""
    try:
        return Path(image).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=512)
def _thumbnail(image: str, _changed: int) -> str:
    name = "embedded picture" if is_data_uri(image) else escape(Path(image).name)
    try:
        small = thumbnail(image, (THUMBNAIL, THUMBNAIL), quality=82)
    except UnreadableImageError:
        return f'<span class="badge">picture not readable: {name}</span>'
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img {size} alt="{name}" loading="lazy" src="{small.uri}">'
