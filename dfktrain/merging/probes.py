"""The prompts on which a merge is verified, and the processor that turns them into tensors.

The built-in probes need no files and are the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.errors import DataError
from dfkdata.media.images import open_image
from dfkeval.models import metadata
from dfkeval.models.processor import load_processor
from dfktrain.merging.plan import read_config

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
    """One prompt.

    Attributes:
        messages: The turns before the answer.
        images: Pictures as the processor takes them, in the order of the messages.
        tools: Tools of the prompt; None without any.
    """

    messages: list[dict[str, Any]]
    images: tuple[Any, ...] = ()
    tools: list[dict[str, Any]] | None = None


def built_in(folder: Path, card: metadata.ModelMetadata | None) -> list[Probe]:
    """Return four texts and, for a vision-language model, a drawn picture.

    Args:
        folder: The model's folder.
        card: Its `dfk.json`, whose system prompt and tools are used; None without one.
    """
    system = [] if card is None or card.system_prompt is None else [_turn("system", card.system_prompt)]
    tools = card.tools if card is not None else None
    vision = is_vision_model(folder)
    texts = [Probe([*system, _turn("user", text, parts=vision)], tools=tools) for text in TEXTS]
    if not vision:
        return texts
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PICTURE}]}
    return [*texts, Probe([*system, question], (_picture(),), tools)]


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
    """Return the prompts of the first rows of a file in the messages layout.

    Raises:
        DataError: The file has no rows, or a row cannot be read.
    """
    from dfkdata.rows.messages import before_answer, load_rows

    probes: list[Probe] = []
    for row in load_rows(path):
        images = tuple(open_image(image) for image in row["images"])
        probes.append(Probe(before_answer(row["messages"]), images, row.get("tools")))
        if len(probes) == limit:
            return probes
    if not probes:
        raise DataError(f"{path}: has no rows to verify the merge on")
    return probes


def is_vision_model(folder: Path) -> bool:
    """Return whether the model in a folder is a vision-language model."""
    return "vision_config" in read_config(folder)


def load_probe_processor(folder: Path) -> Any:
    """Return the processor of the model in a folder, for a language model its tokenizer."""
    if is_vision_model(folder):
        return load_processor(folder)
    from transformers import AutoTokenizer

    from dfkeval.models.loading import foreign_files

    with foreign_files(f"the tokenizer of {str(folder)!r} cannot be loaded"):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
