"""Personal data is masked in every place of a page, pictures are blurred, and other numbers stay."""

from __future__ import annotations

import base64
import io
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape
from PIL import Image

from dfkdata.pages import Look, picture
from dfkdata.pages.redaction import EMAIL, HANDLE, LINK, PHONE, blurred, mask, mask_html, masked

PERSONAL = {
    EMAIL: ["a.b+c@contoh.co.id", "mailto:budi@contoh.id", "Budi_1@sub.contoh.com", "budi [at] contoh.id"],
    LINK: [
        "https://contoh.id/a?b=c&d=%20#e", "http://x.y", "www.contoh.com", "bit.ly/3abC", "wa.me/628123456789",
        "t.me/kanal", "contoh.co.id", "tg://resolve?domain=budi",
    ],
    HANDLE: ["@budi", "@budi.s_1", "@Ünal", "＠budi", "u/some_user"],
    PHONE: [
        "0812-3456-789", "08123456789", "+62 812 3456 7890", "+62-812-3456-7890", "(021) 555 1234", "62812345678",
        "415-555-2671", "+1 (415) 555-2671", "1-800-555-0199", "0812.3456.7890", "+44 20 7946 0958",
    ],
}  # fmt: skip
KINDS = [(mark, text) for mark, texts in PERSONAL.items() for text in texts]
AROUND = ["{}", "hubungi {}, ya", "({})", '"{}"', "x: {}\n", "<{}>", "{}; {}", "a  {}. B"]


@pytest.mark.parametrize(("mark", "text"), KINDS)
def test_each_kind_is_masked_whatever_stands_around_it(mark: str, text: str) -> None:
    for around in AROUND:
        said = mask(around.replace("{}", text))
        assert mark in said and text not in said, (around, said)


@pytest.mark.parametrize(
    "text",
    ["0.8123456789", "0,123456789", "2024-01-02", "01/02/2024", "12345678901234567", "train.jsonl:30", "3.11.4",
     "2.13.0+cu121", "a @ b", "sha256 0a1b2c3d4e5f60718293a4b5c6d7e8f9", "1 234 567", "config.json", "50 000 000",
     "[0.12345678, 0.4567]", "5e-05", "10.000.000"],
)  # fmt: skip
def test_other_numbers_and_names_stay(text: str) -> None:
    assert mask(text) == text


@given(st.text())
def test_masking_twice_is_masking_once_and_html_stays_html(text: str) -> None:
    once = mask(text)
    assert mask(once) == once
    assert mask_html(str(escape(text))) == str(escape(once)).replace("&#34;", "&quot;").replace(
        "&#39;", "&#x27;"
    )


def noise() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((90, 60), 90).save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_a_blurred_picture_keeps_its_size_and_nothing_else() -> None:
    uri = noise()
    with Image.open(io.BytesIO(base64.b64decode(blurred(uri).partition(",")[2]))) as opened:
        assert opened.size == (90, 60)
        grey = opened.convert("L").tobytes()
    steps = [abs(a - b) for a, b in pairwise(grey)]
    assert sum(steps) / len(steps) < 8  # noise of 90 has steps of about 90


def places(text: str, uri: str) -> dict[str, Any]:
    """Every place in which a page holds data: name -> (title, body, navigation, values for scripts)."""
    look = Look()
    body = {
        "text": look.ui.banner(text), "cell": look.ui.table(["a", "b"], [[text, text]]),
        "facts": look.ui.facts([("a", text)]),
        "summary": look.ui.folded(text, Markup("x")), "code": look.ui.code(text), "picture": picture(uri),
        "attribute": Markup('<i title="{0}" aria-label="{0}" data-x="{0}">x</i>').format(text),
    }  # fmt: skip
    return (
        {name: ("t", made, [], {}) for name, made in body.items()}
        | {"title": (text, Markup("x"), [], {}), "navigation": ("t", Markup("x"), [("a", text)], {})}
        | {"values": ("t", Markup("x"), [], {"d": {"k": [text, {"x": text}, uri]}})}
    )


@pytest.mark.parametrize("text", [texts[0] for texts in PERSONAL.values()])
def test_no_place_of_a_page_shows_personal_data_or_pictures(text: str) -> None:
    uri = noise()
    for (name, (title, body, nav, data)), redact in product(places(text, uri).items(), (True, False)):
        look = Look(redact=redact)
        made = look.document(title, body, nav=nav, data=data)
        held = text in made or str(escape(text)) in made
        assert not (redact and held), name
        assert redact or name == "picture" or held, name
        assert not (redact and uri.partition(",")[2] in made), name


def test_values_keep_their_shape() -> None:
    value = {"a": ["@budi", 3, None, True], "b": {"c": 0.5}}
    assert masked(value) == {"a": [HANDLE, 3, None, True], "b": {"c": 0.5}}
