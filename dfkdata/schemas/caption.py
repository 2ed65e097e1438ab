"""Structured caption of an image or a caption text, answered as a call of `emit_caption_schema`.

The JSON Schema equals, key for key, the tool that the json-captioner model card prints: `style` and `mood`
are null by `const`, nothing is required but a subject's name, and unknown keys are not forbidden."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from dfkdata.schemas import Choice, Derived, Grounded, Images, Inferred, Prompt, ToolForm, Value, Variant
from dfkdata.schemas._captions import ASK_IMAGE, DESCRIPTION, SYSTEM, OpenAnswer, SubjectValue


def _null(value: str | None) -> None:
    if value is not None:
        raise ValueError("must be null: the strict schema leaves this slot empty")


_Null = Annotated[Annotated[str, Field(max_length=64)] | None, AfterValidator(_null)]


class Answer(OpenAnswer):
    """subjects: entities with their attributes. actions: relational phrases. setting: where it is."""

    model_config = ConfigDict(title="Caption")

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
        for slot in ("style", "mood"):
            schema["properties"][slot]["const"] = None
        return schema


VARIANTS = {
    "tool": Variant(
        Prompt((Images(), Value("caption", otherwise=ASK_IMAGE)), system=SYSTEM),
        ToolForm("emit_caption_schema", DESCRIPTION),
    )
}
