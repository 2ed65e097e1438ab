"""What the proof of a merge asks, and the processor that turns it into tensors.

Promises: the built-in probes need no files, and are the same everywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.media.images import open_image
from dfkeval.models import metadata as cards
from dfkeval.models.processor import load_processor

TEXTS = (
    "Hello. What can you do?",
    "Judul: Harga beras naik di pasar. Apakah berita ini benar? Jelaskan dengan singkat.",
    "A red car stands beside two tall trees in front of a small white house. List what is there.",
    'Answer as JSON: {"name": ..., "count": ...}. Three black cats sleep on a wooden table by the window, '
    "and a child in a yellow raincoat looks at them from the open door while it is raining outside.",
)
PICTURE = "Describe this picture."


@dataclass(frozen=True)
class Probe:
    """One question. images: pictures as the processor takes them."""

    messages: list[dict[str, Any]]
    images: tuple[Any, ...] = ()
    tools: list[dict[str, Any]] | None = None


def built_in(folder: Path, card: cards.Card | None) -> list[Probe]:
    """Four texts and, for a model that sees, a drawn picture; with the system prompt and tools of
    `dfk.json`."""
    system = [] if card is None or card.system_prompt is None else [_turn("system", card.system_prompt)]
    tools = card.tools if card is not None else None
    sees = vision(folder)
    texts = [Probe([*system, _turn("user", text, parts=sees)], tools=tools) for text in TEXTS]
    if not sees:
        return texts
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PICTURE}]}
    return [*texts, Probe([*system, asked], (_picture(),), tools)]


def _turn(role: str, text: str, *, parts: bool = True) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}


def _picture() -> Any:
    from PIL import Image, ImageDraw

    image = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 8, 52, 50), fill=(220, 30, 40))
    draw.rectangle((56, 24, 90, 60), fill=(20, 60, 200))
    return image


def of_rows(path: Path, limit: int = 8) -> list[Probe]:
    """The prompts of the first rows of a messages file. Raises `DataError` for none."""
    from dfkdata.rows.messages import load_rows
    from dfkdata.rows.prompt import before_answer

    found = []
    for row in load_rows(path):
        images = tuple(open_image(image) for image in row["images"])
        found.append(Probe(before_answer(row["messages"]), images, row.get("tools")))
        if len(found) == limit:
            return found
    if not found:
        raise DataError(f"{path}: no rows to prove the merge on")
    return found


def vision(folder: Path) -> bool:
    """Whether the model in `folder` is a vision-language model."""
    return "vision_config" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def processor(folder: Path) -> Any:
    """The processor, or the tokenizer of a language model."""
    if vision(folder):
        return load_processor(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))
