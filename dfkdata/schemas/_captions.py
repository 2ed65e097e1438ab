"""The prompt, tool description and subjects that the schemas of structured captions share."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from dfkdata.schemas._roles import BaseAnswer

SYSTEM = (
    "You are a caption-structuring assistant. Convert each\nimage caption into JSON matching the schema. "
    "Only include subjects, attributes,\nand actions explicitly mentioned in the caption. "
    "Use null/[] for unspecified\nfields."
)
ASK_IMAGE = "Extract the structured representation of what this image shows."
DESCRIPTION = (
    "Emit the structured caption representation. The parameters follow the qwen-test-runner slot registry."
)
OPEN = ConfigDict(frozen=True, strict=True, extra="allow")


class SubjectValue(BaseAnswer):
    """A single entity in the caption."""

    model_config = OPEN

    name: str = Field(min_length=1, max_length=64)
    attributes: list[str] = Field(default_factory=list, max_length=8)


class OpenAnswer(BaseAnswer):
    """An answer whose JSON Schema says nothing about unknown keys."""

    model_config = OPEN

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return pydantic's JSON Schema without `additionalProperties`, which open objects leave out."""
        schema = super().model_json_schema(*args, **kwargs)
        for part in (schema, *schema["$defs"].values()):
            part.pop("additionalProperties")
        return schema
