"""What schemas let through at their top, against values that the engine takes."""

from __future__ import annotations

import random
from typing import Any

import jsonschema_rs
import pytest

from dfkdata.common.json_schema import SchemaDocument, type_of
from dfkeval.parsing.possible_types import PossibleValues
from tests.helpers.random_schemas import shared, value


def is_one_of(given: Any, types: tuple[str, ...] | None) -> bool:
    """Whether the type of a value is in `types`; whole numbers are integers, however they are written."""
    kind = type_of(given)
    whole = kind == "number" and given == int(given)
    return (
        types is None
        or kind in types
        or ({kind, *types} >= {"integer", "number"})
        or (whole and "integer" in types)
    )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_value_that_fits_has_a_type_that_was_ruled_out(seed: int, nested: bool) -> None:
    rng = random.Random(seed)
    told = fits = 0
    for _ in range(150):
        schema = shared(rng, rng.randint(1, 7), nested=nested)
        document = SchemaDocument(schema)
        types = PossibleValues(document, implied=False).types(document.root)
        engine = jsonschema_rs.validator_for(schema)
        told += types is not None
        for given in (value(rng) for _ in range(20)):
            if engine.is_valid(given):
                fits += 1
                assert is_one_of(given, types), (schema, given)
    assert told > 30
    assert fits > 300


@pytest.mark.parametrize("seed", range(3))
def test_a_closed_list_takes_few_texts(seed: int) -> None:
    rng = random.Random(seed)
    closed = 0
    for _ in range(300):
        schema = shared(rng, rng.randint(1, 4), nested=False)
        document = SchemaDocument(schema)
        if PossibleValues(document).are_listed(document.root):
            closed += 1
            engine = jsonschema_rs.validator_for(schema)
            assert sum(engine.is_valid("x" * size) for size in range(30)) <= 1, schema
    assert closed > 10


def test_parts_are_looked_at_once_and_the_order_of_names_is_kept() -> None:
    document = SchemaDocument(
        {
            "anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}, {"$ref": "#/$defs/a"}],
            "$defs": {"a": {"type": ["integer", "string"]}},
        }
    )
    values = PossibleValues(document)
    assert values.types(document.root) == ("integer", "string", "null")
    assert values.types(document.root["$defs"]["a"], True) is None
    assert values.types(False) == ()
    assert values.types(document.root["$defs"]["a"]) == ("integer", "string")
