"""Summary of the content that a screenshot shows (Indonesian), answered as free text."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfkdata.schemas import Images, Prompt, Text, TextForm, Variant
from dfkdata.schemas._roles import Frozen, Prose

INSTRUCTION = "Berikan ringkasan dari konten yang ditampilkan pada tangkapan layar berikut."


class Answer(Frozen):
    """ringkasan: the summary, not empty."""

    ringkasan: Annotated[str, Field(min_length=1), Prose()]


VARIANTS = {"text": Variant(Prompt((Text(INSTRUCTION), Images())), TextForm((("", "ringkasan"),)))}
