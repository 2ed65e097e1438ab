"""A command ends with one message, and options of two parts are split in one way."""

from __future__ import annotations

import pytest

from dfkdata.common.console import examples, key_value, part_of, run_app
from dfkdata.common.errors import ConfigError, DataError


def test_an_error_is_one_message_with_its_notes_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    class Rich(DataError):
        """An error that is not made of one text."""

        def __init__(self, place: str, line: int) -> None:
            super().__init__(f"{place}:{line}: broken")

    def app() -> None:
        try:
            raise Rich("a.jsonl", 3)
        except DataError as error:
            error.add_note("the weights are saved in out/adapter")
            raise

    with pytest.raises(SystemExit) as ended:
        run_app(app, "dfktrain")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "dfktrain: a.jsonl:3: broken\nthe weights are saved in out/adapter\n"


def test_an_error_of_the_program_is_not_hidden() -> None:
    def app() -> None:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        run_app(app, "dfkdata")


def test_pairs_are_split_at_the_first_sign() -> None:
    assert key_value("a.b=c=d", "--set") == ("a.b", "c=d")
    assert key_value("a=", "--set") == ("a", "")
    for text in ("a", "", "=b"):
        with pytest.raises(ConfigError, match=r"--set .*: write it as KEY=VALUE"):
            key_value(text, "--set")


def test_a_part_is_a_place_of_a_count() -> None:
    assert part_of("3/16") == (3, 16) and part_of(None) == (1, 1)
    for text in ("0/2", "3/2", "1", "1/", "a/b", "1/2/3", "-1/2", "١/٢", " 1/2"):
        with pytest.raises(ConfigError, match="write 3/16 for the third of sixteen parts"):
            part_of(text)


def test_examples_stand_on_lines_of_their_own() -> None:
    assert examples("dfk a", "dfk b") == "Examples:\n\n  dfk a\n\n  dfk b"
