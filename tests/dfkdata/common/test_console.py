"""A command ends with one message, and options of two parts are split in one way."""

from __future__ import annotations

import json
import re
from typing import Annotated

import pytest
import typer
from rich.table import Table

from dfkdata.common.console import examples, key_value, part_of, run_app, say, shown, styled, terminal, write
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.progress import Progress


def test_an_error_is_one_message_with_its_notes_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    class Rich(DataError):
        """An error that is not made of one text."""

        def __init__(self, place: str, line: int) -> None:
            super().__init__(f"{place}:{line}: broken")

    def app(**_: object) -> None:
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
    def app(**_: object) -> None:
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


HOSTILE = "a\x1b[31mb\x9b2Jc\x07d\re\u202ef\u2066g\u200fh\u2028i\x00j\x7fk\U000e0041l\udc80m\u200bn"


def test_what_a_terminal_would_obey_is_shown_as_json_writes_it() -> None:
    text = shown(HOSTILE)
    assert all(sign.isprintable() for sign in text)
    assert json.loads(f'"{text}"') == HOSTILE
    plain = "Zeile\n\tTabelle é 中 \u200d\u200c 👩\u200d🚀 العربية"
    assert shown(plain) == plain


def test_json_stays_json() -> None:
    value = {"name": HOSTILE, HOSTILE: [HOSTILE]}
    assert json.loads(shown(json.dumps(value, ensure_ascii=False))) == value


def test_every_way_to_the_terminal_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    write(HOSTILE + "\n")
    say(HOSTILE)
    table = Table()
    table.add_column(styled(HOSTILE))
    table.add_row(styled(HOSTILE, "red"))
    terminal(width=400).print(table)
    progress = Progress("rows", clock=iter((0.0, 3.0, 6.0)).__next__)
    progress(1, 2, HOSTILE)
    out, err = capsys.readouterr()
    assert set(re.findall(r"[^\x20-\x7e─-╿\n]", out + err)) <= set("┏━┳┓┃┡┩│└┘┴┼")
    assert out.count(shown(HOSTILE)) == 3 and err.count(shown(HOSTILE)) == 2


def test_an_error_and_a_wrong_usage_are_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def command(names: list[str], number: Annotated[int, typer.Option()] = 1) -> None:
        error = DataError(f"{names[0]}: broken")
        error.add_note(names[0])
        raise error

    for words in ([HOSTILE], [HOSTILE, "--number", HOSTILE], ["a", f"--{HOSTILE}"]):
        with pytest.raises(SystemExit) as ended:
            run_app(lambda words=words, **options: app(words, **options), "dfkdata")
        assert ended.value.code == 2
        shown_text = "".join(capsys.readouterr())
        assert "\\u001b[31m" in shown_text or "Error" in shown_text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", shown_text)
