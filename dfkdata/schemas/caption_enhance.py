"""Structured caption whose style and mood may be inferred, otherwise as `caption`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dfkdata.schemas import Choice, Derived, Grounded, Images, Inferred, Prompt, ToolForm, Value, Variant
from dfkdata.schemas._captions import ASK_IMAGE, DESCRIPTION, SYSTEM, OpenAnswer, SubjectValue


class Answer(OpenAnswer):
    """subjects, actions, setting as in `caption`; style and mood: up to 64 characters or null."""

    model_config = ConfigDict(title="Caption")

    subjects: Annotated[list[SubjectValue], Field(max_length=8), Grounded()] = Field(default_factory=list)
    actions: Annotated[list[str], Field(max_length=8), Grounded()] = Field(default_factory=list)
    setting: Annotated[Literal["indoor", "outdoor", "unknown"], Choice()] = "unknown"
    style: Annotated[Annotated[str, Field(max_length=64)] | None, Inferred()] = None
    mood: Annotated[Annotated[str, Field(max_length=64)] | None, Derived()] = None


VARIANTS = {
    "tool": Variant(
        Prompt((Images(), Value("caption", otherwise=ASK_IMAGE)), system=SYSTEM),
        ToolForm("emit_caption_schema", DESCRIPTION),
    )
}
