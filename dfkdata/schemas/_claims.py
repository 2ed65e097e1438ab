"""The answer, prompt and spelling that the schemas of DFK claims share (Indonesian)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dfkdata.schemas._dfk_labels import DFK
from dfkdata.schemas._roles import BaseAnswer, Label, Prose

SYSTEM = (
    "Anda adalah sistem deteksi konten DFK berbasis artikel rujukan. Tugas Anda adalah membandingkan klaim "
    "dengan artikel rujukan, lalu mengklasifikasikan teks ke dalam salah satu label: "
    "Netral, Disinformasi, Fitnah, atau Ujaran Kebencian. "
    "Jawab dengan format: Label: **NamaLabel.** penjelasan: ..."
)
PRINTED = tuple((label, label.title()) for label in DFK.canonical)


class ClaimAnswer(BaseAnswer):
    """label: one of the four DFK classes. analisis: the explanation, not empty."""

    label: Annotated[Literal["netral", "disinformasi", "fitnah", "ujaran kebencian"], Label(DFK)]
    analisis: Annotated[str, Field(min_length=1), Prose()]
