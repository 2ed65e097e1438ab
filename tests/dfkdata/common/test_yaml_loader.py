"""YAML gives plain values, and a key stands once."""

from __future__ import annotations

import pytest

from dfkdata.common.errors import ConfigError
from dfkdata.common.yaml_loader import parse


def test_a_number_with_an_exponent_is_a_number() -> None:
    assert parse("rate: 2e-4\nname: 2e-4x", "c.yaml") == {"rate": 2e-4, "name": "2e-4x"}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x:\n  1: a\n  1: b"])
def test_a_key_that_is_written_twice_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml: line 3: the key .* is written twice"):
        parse(text, "c.yaml")


@pytest.mark.parametrize("text", ["? [a]\n: 1", "!!python/object:os.system {}", "a: [1"])
def test_what_is_no_plain_value_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML"):
        parse(text, "c.yaml")
