"""Search keywords of a text, answered as a JSON array of strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dfkdata.fields import Frozen, Grounded
from dfkdata.schemas import Images, JsonForm, Prompt, Value, Variant


class Answer(Frozen):
    """keywords: at least one."""

    keywords: Annotated[list[str], Field(min_length=1), Grounded()]


VARIANTS = {"array": Variant(Prompt((Value("text", otherwise=""), Images())), JsonForm("keywords"))}
