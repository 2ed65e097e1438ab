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

from dfkdata.schemas._dfk_labels import DFK as DFK
from dfkdata.schemas._dfk_labels import DFK_RAW as DFK_RAW
from dfkdata.schemas._form import Form as Form
from dfkdata.schemas._form import Images, JsonForm, Lines, Prompt, Text, TextForm, ToolForm, Value, Variant
from dfkdata.schemas._form import Part as Part
from dfkdata.schemas._json_schema import json_schema as json_schema
from dfkdata.schemas._json_schema import tool as tool
from dfkdata.schemas._labels import LabelSet
from dfkdata.schemas._labels import Resolved as Resolved
from dfkdata.schemas._labels import fold_spelling as fold_spelling
from dfkdata.schemas._labels import own_key as own_key
from dfkdata.schemas._roles import BaseAnswer, Choice, Derived, Grounded, Inferred, Label, Prose
from dfkdata.schemas._roles import Role as Role
from dfkdata.schemas._roles import roles as roles
from dfkdata.schemas._schema import FAMILY as FAMILY
from dfkdata.schemas._schema import Schema as Schema
from dfkdata.schemas._schema import load

# For authors of schemas; the other names are for the rooms above.
#: Names that every member defines.
REQUIRED = ("Answer", "VARIANTS")

__all__ = [
    "BaseAnswer",
    "Choice",
    "Derived",
    "Grounded",
    "Images",
    "Inferred",
    "JsonForm",
    "Label",
    "LabelSet",
    "Lines",
    "Prompt",
    "Prose",
    "Text",
    "TextForm",
    "ToolForm",
    "Value",
    "Variant",
    "load",
]
