"""Structured caption of an image or a caption text, answered as a call of `emit_caption_schema`.

The JSON Schema equals, key for key, the tool that the json-captioner model card prints: `style` and `mood`
are null by `const`, nothing is required but a subject's name, and unknown keys are not forbidden."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

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
)

SYSTEM = (
    "You are a caption-structuring assistant. Convert each\nimage caption into JSON matching the schema. "
    "Only include subjects, attributes,\nand actions explicitly mentioned in the caption. "
    "Use null/[] for unspecified\nfields."
)
ASK_IMAGE = "Extract the structured representation of what this image shows."
DESCRIPTION = (
    "Emit the structured caption representation. The parameters follow the qwen-test-runner slot registry."
)


def _null(value: str | None) -> None:
    if value is not None:
        raise ValueError("must be null: the strict schema leaves this slot empty")


_OPEN = ConfigDict(frozen=True, strict=True, extra="allow")
_Null = Annotated[Annotated[str, Field(max_length=64)] | None, AfterValidator(_null)]


class SubjectValue(BaseAnswer):
    """A single entity in the caption."""

    model_config = _OPEN

    name: str = Field(min_length=1, max_length=64)
    attributes: list[str] = Field(default_factory=list, max_length=8)


class Answer(BaseAnswer):
    """subjects: entities with their attributes. actions: relational phrases. setting: where it is."""

    model_config = ConfigDict(**_OPEN, title="Caption")

    subjects: Annotated[list[SubjectValue], Field(max_length=8), Grounded()] = Field(default_factory=list)
    actions: Annotated[list[str], Field(max_length=8), Grounded()] = Field(default_factory=list)
    setting: Annotated[Literal["indoor", "outdoor", "unknown"], Choice()] = "unknown"
    style: Annotated[_Null, Inferred()] = None
    mood: Annotated[_Null, Derived()] = None

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON Schema as it is printed: no `additionalProperties`, and null slots end in `const`.

        The order of keys counts, since published adapters saw exactly these bytes in their prompt."""
        schema = super().model_json_schema(*args, **kwargs)
        for part in (schema, *schema["$defs"].values()):
            part.pop("additionalProperties")
        for slot in ("style", "mood"):
            schema["properties"][slot]["const"] = None
        return schema


VARIANTS = {
    "tool": Variant(
        Prompt((Images(), Value("caption", otherwise=ASK_IMAGE)), system=SYSTEM),
        ToolForm("emit_caption_schema", DESCRIPTION),
    )
}
