"""DFK label of a claim against a reference article, in five classes: facts and other posts stay apart."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dfkdata.schemas import DFK_RAW, BaseAnswer, Label, Prompt, Prose, TextForm, Value, Variant

SYSTEM = (
    "Anda adalah sistem deteksi konten DFK berbasis artikel rujukan. Tugas Anda adalah membandingkan klaim "
    "dengan artikel rujukan, lalu mengklasifikasikan teks ke dalam salah satu label: "
    "Fakta, Disinformasi, Fitnah, Ujaran Kebencian, atau Non-DFK. "
    "Jawab dengan format: Label: **NamaLabel.** penjelasan: ..."
)


class Answer(BaseAnswer):
    """label: one of the five raw classes. analisis: the explanation, not empty."""

    label: Annotated[
        Literal["fakta", "non_dfk", "disinformasi", "fitnah", "ujaran kebencian"], Label(DFK_RAW)
    ]
    analisis: Annotated[str, Field(min_length=1), Prose()]


PRINTED = tuple((label, "Non-DFK" if label == "non_dfk" else label.title()) for label in DFK_RAW.canonical)
VARIANTS = {
    "bold": Variant(
        Prompt((Value("text", otherwise=""),), system=SYSTEM),
        TextForm((("Label: **", "label"), (".** penjelasan: ", "analisis")), printed=PRINTED),
    )
}
