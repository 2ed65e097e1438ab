"""Make sample captions with their gold structure, one JSON object a line, and a few broken rows on purpose."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

from dfktrain.demo.words import INDOOR, NOUNS, OUTDOOR, TRAITS, VERBS

Gold = dict[str, Any]


def make_caption(rng: random.Random) -> tuple[str, Gold]:
    """Return (caption, gold): one to three subjects with traits, what they do to each other, and where."""
    nouns = rng.sample(NOUNS, rng.choices((1, 2, 3), (1, 4, 2))[0])
    subjects: list[dict[str, Any]] = [
        {"name": noun, "attributes": rng.sample(TRAITS, rng.choices((0, 1, 2), (3, 5, 1))[0])}
        for noun in nouns
    ]
    phrases = [_with_article([*subject["attributes"], subject["name"]]) for subject in subjects]
    text, actions = phrases[0], []
    for (before, noun), words in zip(itertools.pairwise(nouns), phrases[1:], strict=True):
        if rng.random() < 0.65:
            verb = rng.choice(VERBS)
            actions.append(f"{before} {verb} {noun}")
            text += f" {verb} {words}"
        else:
            text += f" {rng.choice(('with', 'and', 'next to'))} {words}"
    setting = rng.choice(("indoor", "outdoor", "unknown"))
    if setting != "unknown":
        text += " in " + _with_article([rng.choice(INDOOR if setting == "indoor" else OUTDOOR)])
    return text, {"subjects": subjects, "actions": actions, "setting": setting}


def _with_article(words: list[str]) -> str:
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def write_captions(folder: Path, *, count: int, seed: int) -> Path:
    """Write captions.jsonl.

    Args:
        folder: Folder of the file.
        count: Number of good rows.
        seed: Seed of the rows.

    Returns:
        The file.
    """
    rng = random.Random(f"captions/{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    captions: dict[str, Gold] = {}
    while len(captions) < count:
        caption, gold = make_caption(rng)
        captions.setdefault(caption, gold)
    lines = [
        json.dumps({"id": f"caption-{at:04d}", "caption": caption, "gold": gold})
        for at, (caption, gold) in enumerate(captions.items())
    ]
    for line in _broken(lines[0]):
        lines.insert(rng.randrange(len(lines)), line)
    path = folder / "captions.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _broken(line: str) -> list[str]:
    """Return one row of each kind: cut JSON, no caption, unknown setting, gold that is no object, exact copy."""
    row = json.loads(line)
    return [
        line[: len(line) // 2],
        json.dumps(row | {"id": "no-caption", "caption": ""}),
        json.dumps(row | {"id": "bad-setting", "gold": row["gold"] | {"setting": "underwater"}}),
        json.dumps(row | {"id": "no-object", "gold": ["table"]}),
        line,
    ]
