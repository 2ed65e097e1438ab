"""Normal forms equal those of unicodedata, and long runs of marks reach unicodedata in order, at every door."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkdata import convert
from dfkdata.common import unicode_forms
from dfkdata.common.unicode_forms import Form, has_long_run, is_normalized, normalize
from dfkdata.schemas._labels import fold_spelling
from dfkdata.validation import grounding
from dfkdata.validation.conversation import nfc
from dfkeval.metrics import rouge
from tests.helpers.places import ROOT
from tests.helpers.rows import caption, write

FORMS: tuple[Form, ...] = ("NFC", "NFD", "NFKC", "NFKD")
MARKS = "\u0301\u0316\u0345\u0f73\u0f75\u0f81\uff9e\uff9f\u0344\u0327\u3099\u0300\u05b0\u0660"
LETTERS = "ae\u1100\u1161\u11a8\uac00\u212b\u00a8 x\u0915\u0cc6\ufb01\u1e9b"


@settings(deadline=None)
@given(
    st.text(MARKS + LETTERS, max_size=40), st.text(MARKS, min_size=30, max_size=90), st.text(MARKS + LETTERS)
)
def test_the_forms_are_those_of_unicodedata(before: str, run: str, after: str) -> None:
    for text in (before + run + after, run * 2 + before):
        for form in FORMS:
            assert normalize(form, text) == unicodedata.normalize(form, text)
            assert is_normalized(form, text) == unicodedata.is_normalized(form, text)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_normalised_as_by_unicodedata(text: str) -> None:
    for form in FORMS:
        assert normalize(form, text) == unicodedata.normalize(form, text)


def test_every_sign_that_is_taken_apart_into_marks_counts_as_one() -> None:
    signs = map(chr, range(sys.maxunicode + 1))
    late = {
        sign
        for sign in signs
        if not unicodedata.combining(sign)
        and unicodedata.combining(unicodedata.normalize("NFKD", sign)[:1] or "x")
    }
    assert late <= unicode_forms._LATE_MARKS


@pytest.mark.parametrize("length", [64, 65, 95, 4_000])
@pytest.mark.parametrize("start", range(0, 70, 7))
def test_no_long_run_is_missed_wherever_it_begins(length: int, start: int) -> None:
    assert has_long_run("x" * start + "\u0301\u0316" * (length // 2) + "\u0301" * (length % 2))


def test_texts_of_living_languages_have_no_long_run() -> None:
    for text in ("ประชาธิปไตย ที่นี่ " * 500, "بِسْمِ اللَّهِ الرَّحْمَٰنِ " * 500, "क्षत्रिय " * 500, "e\u0301\u0323 " * 500):
        assert not has_long_run(text)


DOORS: dict[str, Callable[[str], object]] = {
    "text of a row": nfc,
    "label": fold_spelling,
    "grounding": lambda text: grounding.GroundingSource(text).supports(text),
    "coverage": lambda text: grounding.coverage(text, text),
    "ROUGE": lambda text: rouge.normalize("NFKC", text),
}


class _Watched:
    """`unicodedata` that refuses what would take it quadratic time: a long run of marks out of order."""

    combining = staticmethod(unicodedata.combining)

    @staticmethod
    def _check(text: str) -> None:
        places = [unicodedata.combining(sign) for sign in text]
        inversions = sum(0 < after < before for before, after in itertools.pairwise(places))
        assert len(text) < 100 or inversions < len(text) / 100

    def normalize(self, form: Form, text: str) -> str:
        self._check(text)
        return unicodedata.normalize(form, text)

    def is_normalized(self, form: Form, text: str) -> bool:
        self._check(text)
        return unicodedata.is_normalized(form, text)


@pytest.mark.parametrize("door", DOORS)
def test_long_runs_are_in_order_when_they_are_normalised(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicode_forms, "unicodedata", _Watched())
    DOORS[door]("e" + "\u0301\u0316" * 4_000)


def test_nothing_else_normalises() -> None:
    call = re.compile(r"\bunicodedata\.(?:is_)?normalize")
    files = [path for name in ("dfkdata", "dfkeval", "dfktrain") for path in (ROOT / name).rglob("*.py")]
    assert [path.name for path in files if call.search(path.read_text())] == ["unicode_forms.py"]


def test_a_conversion_of_many_marks_ends(tmp_path: Path) -> None:
    text = "A dog" + "\u0301\u0316" * 400_000
    write(tmp_path / "rows.jsonl", [caption(0, caption=text)])
    summary = convert(
        tmp_path / "rows.jsonl", tmp_path / "out", format="captions", validation=0, rules={"TEXT_NFC": "fix"}
    )
    assert summary.rows["in"] == 1
