"""The public testing tools: the table's driver finds wrong parsers, and the command shows what is wrong
where."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from dfkdata.common.errors import ConfigError
from dfkeval.cli.parse import parse_command, underline
from dfkeval.parsing.toolcall import ParseResult, Problem, ToolCall, write_tool_call
from dfkeval.testing.conformance import cases, drive, explain
from dfkeval.testing.roundtrip import verdict

ALL = {case.id: case for case in cases()}


def result(calls=(), problems=(), content="", reasoning=""):
    made = [SimpleNamespace(name=name, arguments=arguments) for name, arguments in calls]
    return SimpleNamespace(calls=made, problems=list(problems), content=content, reasoning=reasoning)


BAD = SimpleNamespace(status="malformed")


def test_a_parser_that_returns_nothing_fails_the_table():
    wrong = [case.id for case in ALL.values() if explain(case, result()) is not None]
    assert len(wrong) > 140


@pytest.mark.parametrize(
    ("row", "mode", "made", "good"),
    [
        ("b02-canonical", "lenient", result([("lookup_city", {"city": "Lyon"})]), False),
        ("t15-bool-true", "lenient", result([("task", {"b": 1})]), False),
        ("t15-bool-true", "lenient", result([("task", {"b": True})]), True),
        ("t10-number-whole", "lenient", result([("task", {"n": 5})]), True),
        ("t63-nested-array-int", "lenient", result([("find", {"l": [10, 20]})]), False),
        (
            "b03-content-before",
            "lenient",
            result([("lookup_city", {"city": "Lyon", "region": "ARA"})], content="x"),
            False,
        ),
        ("b01-no-call", "lenient", result(), True),
        ("b01-no-call", "lenient", result(problems=[BAD]), False),
        ("b01-no-call", "lenient", result([("f", {})]), False),
        ("m13-empty-wrapper", "lenient", result(), False),
        ("m13-empty-wrapper", "lenient", result(problems=[BAD]), True),
        ("m35-unknown-param", "strict", result(problems=[BAD]), False),
        ("m35-unknown-param", "strict", result(problems=[SimpleNamespace(status="ambiguous")]), True),
    ],
)
def test_the_driver_tells_right_from_wrong(row, mode, made, good):
    assert (explain(ALL[row], made, mode) is None) is good


def test_the_verdict_counts_what_differs_only_in_a_spelled_null_apart():
    def read(arguments, problems=()):
        return ParseResult("", [ToolCall("file_note", arguments, (0, 0), (), {})], list(problems), [])

    calls = [("file_note", {"title": "x", "note": "None"})]
    assert verdict(calls, read({"title": "x", "note": "None"})) == "exact"
    assert verdict(calls, read({"title": "x", "note": None})) == "null"
    assert verdict(calls, read({"title": "y", "note": None})) == "wrong"
    problem = Problem("ambiguous", "x", "x", (0, 0))
    assert verdict(calls, read({"title": "y"}, [problem])) == "flagged"
    assert verdict(calls, read(calls[0][1], [problem])) == "flagged"


def test_cutting_does_not_change_what_the_driver_drives():
    case = ALL["b37-caption"]
    assert drive(case, "strict") == drive(case, "strict", "characters") == drive(case, "strict", "random", 3)


# --- the command
# -----------------------------------------------------------------------------------------------------

app = typer.Typer()
app.command()(parse_command)
GOOD = write_tool_call("emit_caption_schema", {"actions": ["runs"]})


def run(text, *options):
    done = CliRunner().invoke(app, ["--schema", "caption", *options], input=text)
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


def test_the_command_prints_the_value():
    assert run(GOOD) == (0, [{"ok": True, "value": {"actions": ["runs"]}, "repairs": []}])


def test_the_command_underlines_the_problem():
    code, [report] = run(GOOD.replace('["runs"]', "[1]"))
    assert (code, report["kind"]) == (1, "schema_invalid")
    assert report["problems"][0]["json_pointer"] == "/actions/0"
    assert report["problems"][0]["underlined"] == "[1]\n^^^"


def test_the_streamed_command_prints_calls_as_they_finish():
    code, lines = run(GOOD, "--stream")
    assert code == 0
    assert lines[0] == {"event": "call", "name": "emit_caption_schema", "arguments": {"actions": ["runs"]}}


def test_one_final_newline_belongs_to_the_shell_unless_the_input_is_exact():
    text = "Label: Fitnah\n\nAnalisis: x"
    for options, ending, kept in (
        ((), "\n", ""),
        ((), "\r\n", ""),
        ((), "\n\n", "\n"),
        (("--exact",), "\n", "\n"),
    ):
        done = CliRunner().invoke(app, ["--schema", "dfk_label", *options], input=(text + ending).encode())
        assert json.loads(done.stdout)["value"]["analisis"] == "x" + kept


def test_the_command_reads_carriage_returns_as_they_are_and_refuses_what_is_not_utf_8():
    problem = run(GOOD.replace("runs", "ru\r\nns"))[1][0]["problems"][0]
    assert (problem["code"], "\r\n" in problem["underlined"]) == ("raw_line_break", True)
    for options in ((), ("--stream",)):
        done = CliRunner().invoke(app, ["--schema", "caption", *options], input=b"\xff")
        assert isinstance(done.exception, ConfigError)
        assert "not UTF-8 (byte 0)" in str(done.exception)


def test_the_problem_is_shown_on_standard_error_too():
    done = CliRunner().invoke(app, ["--schema", "caption"], input=GOOD.replace('["runs"]', "[1]"))
    assert done.stderr.endswith("\n[1]\n^^^\n")


def test_carets_stand_below_wide_characters_and_behind_tabs():
    shown = underline("\t日e\u0301本", Problem("malformed", "c", "m", (4, 5)))
    assert shown == "\t日e\u0301本\n\t   ^^"


def test_a_long_line_is_cut_around_the_problem():
    text = "x" * 300 + "BAD" + "y" * 300
    shown, marks = underline(text, Problem("malformed", "c", "m", (300, 303))).split("\n")
    assert len(shown) == 100
    assert shown[marks.index("^") :].startswith("BAD")
