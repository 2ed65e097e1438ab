"""DFK label and analysis of a social-media post (Indonesian), answered as text.

The default variant `code` is what the published adapter's training code renders: no newline between the
instruction and `Judul:`, a blank line between label and analysis. `card` is the form that its model card
prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dfkdata.schemas import DFK, BaseAnswer, Images, Label, Lines, Prompt, Prose, Text, TextForm, Variant

INSTRUCTION = (
    "Anda adalah seorang analis konten media sosial ahli. Diberikan tangkapan layar dari sebuah unggahan "
    "media sosial, tentukan label kategori pelanggaran dan berikan "
    "analisis detail mengenai pelanggaran yang ditemukan."
)


class Answer(BaseAnswer):
    """label: one of the four DFK classes. analisis: the reasons, not empty."""

    label: Annotated[Literal["netral", "disinformasi", "fitnah", "ujaran kebencian"], Label(DFK)]
    analisis: Annotated[str, Field(min_length=1), Prose()]


INSTRUCTION_CONTENT = INSTRUCTION.replace("sebuah unggahan media sosial", "sebuah konten")
_CLAIMS = Lines((("Ringkasan", "ringkasan"), ("Klaim", "klaim"), ("Fakta", "fakta")))
_LINES = Lines((("Judul", "title"), ("Konteks", "text")))

VARIANTS = {
    "code": Variant(
        Prompt((Text(INSTRUCTION), _LINES, Images())),
        TextForm((("Label: ", "label"), ("\n\nAnalisis: ", "analisis"))),
    ),
    "card": Variant(
        Prompt((Text(INSTRUCTION + "\n"), _LINES, Text("\n"), Images())),
        TextForm((("Label: ", "label"), ("\nAnalisis: ", "analisis"))),
    ),
    "claims": Variant(
        Prompt((Text(INSTRUCTION_CONTENT), _CLAIMS, Images())),
        TextForm((("Label: ", "label"), ("\n\nAnalisis: ", "analisis"))),
    ),
    "image_only": Variant(
        Prompt((Text(INSTRUCTION_CONTENT), Images())),
        TextForm((("Label: ", "label"), ("\n\nAnalisis: ", "analisis"))),
    ),
}
