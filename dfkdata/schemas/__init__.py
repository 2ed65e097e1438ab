"""Output schemas: one file a schema says what the model answers and how it is asked.

FAMILY. A member defines two names:

    class Answer(BaseAnswer)               the validated dict; its fields carry roles such as `Label`
    VARIANTS: dict[str, Variant]           named pairs of prompt and answer form; the first is the default

Prompt text, tool definition, grammar, training target and metrics all derive from these two names.
The order of prompt parts belongs to the schema, because published adapters were trained on exactly that
order. A complete member:

    from typing import Annotated, Literal

    from dfkdata.schemas import BaseAnswer, Label, LabelSet, Prompt, TextForm, Value, Variant

    TONES = LabelSet(("calm", "angry"))


    class Answer(BaseAnswer):
        label: Annotated[Literal["calm", "angry"], Label(TONES)]


    PROMPT = Prompt((Value("text", otherwise=""),), system="Name the tone of the text.")
    VARIANTS = {"text": Variant(PROMPT, TextForm((("Tone: ", "label"),)))}
"""

from __future__ import annotations

from dfkdata.schemas._dfk_labels import DFK, DFK_RAW
from dfkdata.schemas._form import (
    Form,
    Images,
    JsonForm,
    Lines,
    Part,
    Prompt,
    Text,
    TextForm,
    ToolForm,
    Value,
    Variant,
)
from dfkdata.schemas._json_schema import json_schema, tool
from dfkdata.schemas._labels import LabelSet, Resolved
from dfkdata.schemas._roles import BaseAnswer, Choice, Derived, Grounded, Inferred, Label, Prose, Role, roles
from dfkdata.schemas._schema import FAMILY, Schema, load

__all__ = [
    "DFK",
    "DFK_RAW",
    "FAMILY",
    "BaseAnswer",
    "Choice",
    "Derived",
    "Form",
    "Grounded",
    "Images",
    "Inferred",
    "JsonForm",
    "Label",
    "LabelSet",
    "Lines",
    "Part",
    "Prompt",
    "Prose",
    "Resolved",
    "Role",
    "Schema",
    "Text",
    "TextForm",
    "ToolForm",
    "Value",
    "Variant",
    "json_schema",
    "load",
    "roles",
    "tool",
]
