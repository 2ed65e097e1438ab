"""Summary of the content that a screenshot shows (Indonesian), answered as free text."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfkdata.schemas import BaseAnswer, Images, Prompt, Prose, Text, TextForm, Variant

INSTRUCTION = "Berikan ringkasan dari konten yang ditampilkan pada tangkapan layar berikut."


class Answer(BaseAnswer):
    """ringkasan: the summary, not empty."""

    ringkasan: Annotated[str, Field(min_length=1), Prose()]


VARIANTS = {"text": Variant(Prompt((Text(INSTRUCTION), Images())), TextForm((("", "ringkasan"),)))}
