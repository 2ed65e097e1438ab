"""Structured caption whose style and mood may be inferred, otherwise as `caption`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dfkdata.schemas import (
    BaseAnswer,
    Choice,
    Derived,
    Grounded,
    Images,
    Inferred,
    Prompt,
    ToolForm,
    Value,
    Variant,
    caption,
)


class Answer(BaseAnswer):
    """subjects, actions, setting as in `caption`; style and mood: up to 64 characters or null."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", title="Caption")

    subjects: Annotated[list[caption.SubjectValue], Field(max_length=8), Grounded()] = Field(
        default_factory=list
    )
    actions: Annotated[list[str], Field(max_length=8), Grounded()] = Field(default_factory=list)
    setting: Annotated[Literal["indoor", "outdoor", "unknown"], Choice()] = "unknown"
    style: Annotated[Annotated[str, Field(max_length=64)] | None, Inferred()] = None
    mood: Annotated[Annotated[str, Field(max_length=64)] | None, Derived()] = None

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return pydantic's JSON Schema without `additionalProperties`, which open objects leave out."""
        schema = super().model_json_schema(*args, **kwargs)
        for part in (schema, *schema["$defs"].values()):
            part.pop("additionalProperties")
        return schema


VARIANTS = {
    "tool": Variant(
        Prompt((Images(), Value("caption", otherwise=caption.ASK_IMAGE)), system=caption.SYSTEM),
        ToolForm("emit_caption_schema", caption.DESCRIPTION),
    )
}
