"""DFK label of a claim against a reference article (Indonesian), answered on one line with a bold label."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dfkdata.schemas import DFK, BaseAnswer, Label, Prompt, Prose, TextForm, Value, Variant

SYSTEM = (
    "Anda adalah sistem deteksi konten DFK berbasis artikel rujukan. Tugas Anda adalah membandingkan klaim "
    "dengan artikel rujukan, lalu mengklasifikasikan teks ke dalam salah satu label: "
    "Netral, Disinformasi, Fitnah, atau Ujaran Kebencian. "
    "Jawab dengan format: Label: **NamaLabel.** penjelasan: ..."
)


class Answer(BaseAnswer):
    """label: one of the four DFK classes. analisis: the explanation, not empty."""

    label: Annotated[Literal["netral", "disinformasi", "fitnah", "ujaran kebencian"], Label(DFK)]
    analisis: Annotated[str, Field(min_length=1), Prose()]


PRINTED = tuple((label, label.title()) for label in DFK.canonical)
VARIANTS = {
    "bold": Variant(
        Prompt((Value("text", otherwise=""),), system=SYSTEM),
        TextForm((("Label: **", "label"), (".** penjelasan: ", "analisis")), printed=PRINTED),
    )
}
