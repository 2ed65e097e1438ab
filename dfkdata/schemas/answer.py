"""A free answer to a question, perhaps about images: the question's text first, then the images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfkdata.schemas import BaseAnswer, Images, Prompt, Prose, TextForm, Value, Variant


class Answer(BaseAnswer):
    """answer: the text, not empty."""

    answer: Annotated[str, Field(min_length=1), Prose()]


VARIANTS = {"text": Variant(Prompt((Value("question", otherwise=""), Images())), TextForm((("", "answer"),)))}
