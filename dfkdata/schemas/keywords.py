"""Search keywords of a text, answered as a JSON array of strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfkdata.schemas import BaseAnswer, Grounded, Images, JsonForm, Prompt, Value, Variant


class Answer(BaseAnswer):
    """keywords: at least one."""

    keywords: Annotated[list[str], Field(min_length=1), Grounded()]


VARIANTS = {"array": Variant(Prompt((Value("text", otherwise=""), Images())), JsonForm("keywords"))}
