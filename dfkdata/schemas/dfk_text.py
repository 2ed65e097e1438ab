"""DFK label of a claim against a reference article (Indonesian), answered on one line with a bold label."""

from __future__ import annotations

from dfkdata.schemas import Prompt, TextForm, Value, Variant
from dfkdata.schemas._claims import PRINTED, SYSTEM, ClaimAnswer


class Answer(ClaimAnswer):
    """label: one of the four DFK classes. analisis: the explanation, not empty."""


VARIANTS = {
    "bold": Variant(
        Prompt((Value("text", otherwise=""),), system=SYSTEM),
        TextForm((("Label: **", "label"), (".** penjelasan: ", "analisis")), printed=PRINTED),
    )
}
