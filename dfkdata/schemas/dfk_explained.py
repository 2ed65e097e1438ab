"""DFK label of a claim, the explanation first and the label as conclusion (Indonesian)."""

from __future__ import annotations

from dfkdata.schemas import Prompt, TextForm, Value, Variant, dfk_text

Answer = dfk_text.Answer

VARIANTS = {
    "conclusion": Variant(
        Prompt((Value("text", otherwise=""),), system=dfk_text.SYSTEM),
        TextForm(
            (("Penjelasan:\n", "analisis"), ("\nKesimpulan:\nLabel: ", "label")),
            end=".",
            printed=dfk_text.PRINTED,
        ),
    )
}
