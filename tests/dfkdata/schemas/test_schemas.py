"""Schemas: the member in the package's docstring works, labels resolve, and unknown names list the choices."""

from __future__ import annotations

import pytest

from dfkdata import Record, schemas, training_row
from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import DFK, DFK_RAW, LabelSet
from tests.helpers.examples import shown_member


def test_the_member_in_the_docstring_asks_and_answers() -> None:
    schema = schemas.load(shown_member(schemas))
    record = Record(id="1", group="", source="a:1", fields={"text": "No!"}, gold={"label": "angry"})
    turns = training_row(record, schema)["messages"]
    texts = [part["text"] for turn in turns for part in turn["content"]]
    assert texts == ["Name the tone of the text.", "No!", "Tone: angry"]


@pytest.mark.parametrize("labels", [DFK, DFK_RAW])
def test_every_spelling_resolves_to_a_canonical_class(labels: LabelSet) -> None:
    for spelling in labels.spellings:
        resolved = labels.resolve(f" {spelling.upper()}. ")
        assert resolved is not None
        assert resolved.label in labels.canonical
        assert (resolved.alias is None) == (spelling in labels.canonical)


@pytest.mark.parametrize("name", plugins.names(schemas.FAMILY))
def test_a_member_is_found_by_its_name_its_module_and_its_answer_class(name: str) -> None:
    by_name = schemas.load(name)
    module = plugins.load(schemas.FAMILY, name)
    assert by_name.name == name
    assert schemas.load(module) == schemas.load(module.Answer) == by_name


def test_an_unknown_variant_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="it has code, card, claims, image_only"):
        schemas.load("dfk_label", "other")


def test_all_names_what_the_package_exports() -> None:
    assert all(hasattr(schemas, name) for name in schemas.__all__)
