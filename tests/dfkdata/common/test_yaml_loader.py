"""YAML gives plain values, and a key stands once."""

from __future__ import annotations

import pytest

from dfkdata.common.config import MOST_FAULTS, Config, bind
from dfkdata.common.errors import ConfigError
from dfkdata.common.yaml_loader import parse, parse_texts


def test_a_number_with_an_exponent_is_a_number() -> None:
    assert parse("rate: 2e-4\nname: 2e-4x", "c.yaml") == {"rate": 2e-4, "name": "2e-4x"}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x:\n  1: a\n  1: b"])
def test_a_key_that_is_written_twice_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml: line 3: the key .* is written twice"):
        parse(text, "c.yaml")


@pytest.mark.parametrize("text", ["0: a\nNo: b", "1: a\nyes: b", "0: a\n0.0: b", "010: a\n8: b"])
def test_keys_that_yaml_reads_as_one_value_are_named_as_they_stand_there(text: str) -> None:
    first, second = (line.partition(":")[0] for line in text.splitlines())
    with pytest.raises(
        ConfigError, match=rf"line 2: the keys {first} and {second} are one value to YAML .* quote"
    ):
        parse(text, "c.yaml")
    assert parse_texts(text, "c.yaml") == {first: "a", second: "b"}


@pytest.mark.parametrize("text", ["? [a]\n: 1", "!!python/object:os.system {}", "a: [1"])
def test_what_is_no_plain_value_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml: not YAML"):
        parse(text, "c.yaml")


@pytest.mark.parametrize("text", ["[" * 5_000 + "]" * 5_000, "{a: " * 5_000 + "1" + "}" * 5_000])
def test_what_is_nested_too_deep_is_an_error_with_the_file(text: str) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml: lists and mappings are nested too deep"):
        parse(text, "c.yaml")


def test_a_large_mapping_is_read_and_bound_in_linear_work() -> None:
    text = "".join(f"k{number}: {number}\n" for number in range(20_000))  # minutes if each key met each other
    data = parse(text, "c.yaml")
    assert len(data) == 20_000
    with pytest.raises(ConfigError) as caught:
        bind(data, Config, "c.yaml")
    assert str(caught.value).count("unknown key") == MOST_FAULTS
    assert str(caught.value).endswith(f"c.yaml: and {20_000 - MOST_FAULTS} more faults")
