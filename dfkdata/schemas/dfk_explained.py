"""DFK label of a claim, the explanation first and the label as conclusion (Indonesian)."""

from __future__ import annotations

from dfkdata.schemas import Prompt, TextForm, Value, Variant
from dfkdata.schemas._claims import PRINTED, SYSTEM, ClaimAnswer


class Answer(ClaimAnswer):
    """label: one of the four DFK classes. analisis: the explanation, not empty."""


VARIANTS = {
    "conclusion": Variant(
        Prompt((Value("text", otherwise=""),), system=SYSTEM),
        TextForm(
            (("Penjelasan:\n", "analisis"), ("\nKesimpulan:\nLabel: ", "label")), end=".", printed=PRINTED
        ),
    )
}
