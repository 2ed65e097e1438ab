"""What points at a person is masked, in whatever sentence it stands; everything else stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata.pages.redaction import mask, masked

PERSONAL = {
    "handle": ["@budi", "@budi_s99", "@Ani.W"],
    "link": [
        "https://x.example/status/1?a=b", "http://t.co/Ab1", "www.contoh.id/berita", "bit.ly/3xYz", "t.me/grup_baru",
         "facebook.com/ani.w"],
    "phone": ["0812-3456-7890", "+62 812 3456 7890", "(021) 555-12345", "081234567890"],
    "e-mail": ["budi.s+x@contoh.co.id", "a@b.org"],
}  # fmt: skip
HARMLESS = [
    "Label: fitnah", "Pada 2026-11-28 pukul 10.20", "Rp 1.500.000", "12.345 korban", "nilai 0.88 [0.23, 0.69]", "a @ b",
    "e.g. this", "versi 5.17.0", "satu.Dua", "<tool_call>\n<function=f>", '{"a": [1, 2, 3]}', "", "https",
]  # fmt: skip
AROUND = st.sampled_from(
    ["{}", "Kata {} tadi", "({})", '"{}"', "{}, lalu", "lihat:\n{}\nya", "<b>{}</b>", "{} {}"]
)


@given(st.sampled_from([(kind, text) for kind, texts in PERSONAL.items() for text in texts]), AROUND)
def test_it_is_masked_in_every_sentence(case: tuple[str, str], sentence: str) -> None:
    kind, text = case
    shown = mask(sentence.format(text, text))
    assert text not in shown
    assert f"[{kind}]" in shown
    assert not set(shown) & set("0123456789@")
    assert mask(shown) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_stay(text: str) -> None:
    assert mask(text) == text


def test_values_keep_their_shape_and_keys() -> None:
    value = {"@a": ["@budi", 1, None, True], "b": {"c": "a@b.org"}}
    assert masked(value) == {"@a": ["[handle]", 1, None, True], "b": {"c": "[e-mail]"}}


def test_a_text_in_the_form_of_a_picture_is_shown_as_nothing() -> None:
    assert masked({"answer": "data:image/png;base64,QUJD"}) == {"answer": "data:,"}
    assert masked("data: a@b.co said so") == mask("data: a@b.co said so")
