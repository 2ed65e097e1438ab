"""Tags that are written in another way: each is mended by name or reported, and never stays in a value."""

from __future__ import annotations

import itertools
import re

import pytest

from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call

TOOLS = [
    {
        "name": "w",
        "parameters": {
            "properties": {
                "city": {"type": "string"},
                "note": {"type": "string"},
                "n": {"type": "integer"},
                "list": {"type": "array"},
                "unit": {"$ref": "#/$defs/unit"},
            },
            "$defs": {"unit": {"enum": ["F", "C"]}},
        },
    },
    {"name": "ping"},
]
LENIENT = ToolCallParser(TOOLS, mode="lenient")
STRICT = ToolCallParser(TOOLS)
HEAD, TAIL = "<tool_call>\n<function=w>\n", "</function>\n</tool_call>"
CLOSERS = ["</parameter/>", "</ parameter>", "</PARAMETER>", "</Parameter >", "<\\/parameter>", "< /parameter>",
           "<//parameter>", "</parametr>", "</prameter>", "</parameters>", "</param>", "</parameter", "</arg>",
           "</city>", "<parameter>", "< / parameter >", "</ParameteR/>", "</|parameter>"]  # fmt: skip
VALUES = {"city": ("Oslo", "Oslo"), "n": ("5", 5), "list": ('["a"]', ["a"]), "unit": ("F", "F")}
NEXT = {"nothing": "", "a parameter": "<parameter=note>\nx\n</parameter>\n"}


@pytest.mark.parametrize("closer", CLOSERS)
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("behind", NEXT)
def test_a_misspelled_closer_ends_its_value(closer, name, behind):
    written, value = VALUES[name]
    text = f"{HEAD}<parameter={name}>\n{written}\n{closer}\n{NEXT[behind]}{TAIL}"
    call = LENIENT.parse(text).calls[0]
    assert call.arguments == {name: value} | ({"note": "x"} if NEXT[behind] else {})
    assert call.repairs
    assert STRICT.parse(text).calls == []


@pytest.mark.parametrize(
    "closer", [closer for closer in CLOSERS if "/" in closer and "aram" in closer.lower()]
)
@pytest.mark.parametrize("behind", NEXT)
def test_a_misspelled_closer_of_a_parameter_behind_its_text_ends_it_too(closer, behind):
    text = f"{HEAD}<parameter=city>\nOslo{closer}\n{NEXT[behind]}{TAIL}"
    result = LENIENT.parse(text)
    assert [call.arguments["city"] for call in result.calls] == ["Oslo"]
    assert STRICT.parse(text).calls == []


@pytest.mark.parametrize("value", ["<b>x\n</b>", "a\n</b> c", "x </i>", "</b>", "<city>\n</city>"])
def test_a_closing_tag_is_data_of_a_value_that_is_closed(value):
    written = write_tool_call("w", {"city": value})
    assert STRICT.parse(written).calls[0].arguments == {"city": value}


@pytest.mark.parametrize(
    ("closer", "kind"), list(itertools.product(["", "/", " /"], ["lone", "closed", "with a value"]))
)
def test_a_self_closed_opener_is_an_empty_value_or_an_opener(closer, kind):
    inner = {"lone": "", "closed": "\n</parameter>", "with a value": "\nOslo\n</parameter>"}[kind]
    text = f"{HEAD}<parameter=city{closer}>{inner}\n{TAIL}"
    call = LENIENT.parse(text).calls[0]
    assert call.arguments == {"city": "Oslo" if kind == "with a value" else ""}
    assert ("self_closed_opener" in call.repairs) == (closer != "")
    assert bool(STRICT.parse(text).calls) == (not closer and kind != "lone")


def test_a_name_that_ends_with_a_slash_is_read_where_it_is_declared():
    tools = [{"name": "w", "parameters": {"properties": {"path/": {"type": "string"}}}}]
    text = write_tool_call("w", {"path/": "x"})
    assert ToolCallParser(tools).parse(text).calls[0].arguments == {"path/": "x"}
    assert ToolCallParser().parse(text).calls[0].arguments == {"path/": "x"}


def test_a_self_closed_function_is_a_call_without_arguments():
    for parser in (LENIENT, ToolCallParser(mode="lenient")):
        call = parser.parse("<tool_call>\n<function=ping/>\n</tool_call>").calls[0]
        assert (call.name, call.arguments) == ("ping", {})
        assert "self_closed_opener" in call.repairs
    assert STRICT.parse("<tool_call>\n<function=ping/>\n</tool_call>").calls == []


@pytest.mark.parametrize(
    "opener", ['<parameter name="note">', "<parameter name = note >", "<PARAMETER=note>", "<param=note>",
               "<parameter: note>",
               "< parameter=note>", "<parameters='note'>"],
)  # fmt: skip
def test_a_misspelled_opener_behind_a_closer_is_reported_and_not_text(opener):
    text = f"{HEAD}<parameter=city>\nOslo\n</parameter>\n{opener}\nx\n</parameter>\n{TAIL}"
    for parser in (STRICT, LENIENT):
        result = parser.parse(text)
        assert result.calls == []
        assert result.problems[0].code == "parameter_in_text"
        assert text[slice(*result.problems[0].span)].startswith(opener[:-1].rstrip("\"' "))
    for other in ("mode", "city"):
        kept = text.replace("note", other)
        assert STRICT.parse(kept).ok


@pytest.mark.parametrize(
    "opener", ["<arg=note>", "<prameter=note>", "<parmeter = 'note'>", "<note>", "<note/>", '<arg name="note">',
               "[parameter=note]", "<|parameter=note|>", "&lt;parameter=note&gt;", "<field id=note type=text>",
               '<"note">',
               "<note", "[note]", "<note>x</note>", "<note lang=en>"],
)  # fmt: skip
def test_a_tag_of_any_name_that_opens_what_can_be_next_is_reported(opener):
    text = f"{HEAD}<parameter=city>\nOslo\n</parameter>\n{opener}\nx\n</parameter>\n{TAIL}"
    for parser in (STRICT, LENIENT):
        result = parser.parse(text)
        assert result.calls == []
        assert [problem.code for problem in result.problems] == ["parameter_in_text"]
        start, end = result.problems[0].span
        assert opener.startswith(text[start:end])
        for other in ("mode", "city"):
            kept = parser.parse(text.replace("note", other))
            assert [call.arguments for call in kept.calls] == [
                {"city": f"Oslo\n</parameter>\n{opener.replace('note', other)}\nx"}
            ]


@pytest.mark.parametrize("tools", [None, [{"name": "w"}]], ids=["no tools", "no parameters"])
@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(
    ("opener", "is_one"),
    [('<parameter name="n">', True), ("<PARAM n", True), ("<parameter>", True), ("<parameters: n>", True),
     ("<parameter name='city'>", False), ("<note>", False), ("<arg=n>", False), ("[n]", False), ("n", False)],
)  # fmt: skip
def test_without_declared_parameters_a_misspelled_opener_is_reported_too(tools, mode, opener, is_one):
    text = f"{HEAD}<parameter=city>\nOslo\n</parameter>\n{opener}\nx\n</parameter>\n{TAIL}"
    result = ToolCallParser(tools, mode=mode).parse(text)
    assert ("parameter_in_text" in [problem.code for problem in result.problems]) == is_one
    assert (result.calls == []) == is_one


@pytest.mark.parametrize("closer", ["</parameter>", "</Parameter>", "</parameter>\n</parameter>"])
@pytest.mark.parametrize(
    "opener", ['<parameter id="n">', "<parameter n>", "<parameter key=n>", "<parameter>n", "<parameter> n</x>",
               "<parameter>", "<parameter/>", "<PARAM n", "<parameter\nname='n'>", "<parameter type=city id=n>"],
)  # fmt: skip
def test_an_opener_without_a_name_in_its_place_behind_a_closer_is_no_text(closer, opener):
    text = f"{HEAD}<parameter=city>\nOslo\n{closer}\n{opener}\n5\n</parameter>\n{TAIL}"
    for parser in (STRICT, LENIENT):
        result = parser.parse(text)
        assert result.calls == []
        assert "parameter_in_text" in [problem.code for problem in result.problems]


@pytest.mark.parametrize(
    "behind", ["<parameter mode>", "<parameter>mode", "<parameter city>", "<parameters_of n>", "<param-x n>",
               "<params.n>", "<p n>", "n <parameter>", "of <parameter n>"],
)  # fmt: skip
def test_what_opens_nothing_that_can_be_next_is_data(behind):
    value = f"Oslo\n</parameter>\n{behind}\n5"
    for parser in (STRICT, LENIENT):
        assert parser.parse(write_tool_call("w", {"city": value})).calls[0].arguments == {"city": value}


def test_a_tag_without_a_name_is_data_where_no_parameter_is_left():
    tools = [{"name": "w", "parameters": {"properties": {"city": {"type": "string"}}}}]
    value = "a\n</parameter>\n<parameter>\nb"
    assert ToolCallParser(tools).parse(write_tool_call("w", {"city": value})).calls[0].arguments == {
        "city": value
    }


@pytest.mark.parametrize(
    "closer", ["</parameter\n>", "</parameter\n/>", "</\nparameter>", "<\n/parameter\r\n>"]
)
@pytest.mark.parametrize("behind", NEXT)
def test_a_closer_that_is_broken_over_lines_ends_its_value(closer, behind):
    text = f"{HEAD}<parameter=city>\nOslo\n{closer}\n{NEXT[behind]}{TAIL}"
    call = LENIENT.parse(text).calls[0]
    assert (call.arguments["city"], call.repairs) == ("Oslo", ("drifted_closer",))
    assert [problem.code for problem in STRICT.parse(text).problems] == ["drifted_closer"]


@pytest.mark.parametrize("closer", ["</ parameter>", "</PARAMETER/>", "</param>"])
@pytest.mark.parametrize("behind", ["x\n", "5\n</parameter1>\n", "</Parameter>\n"])
def test_a_misspelled_closer_stays_in_no_value_that_is_not_closed(closer, behind):
    text = f"{HEAD}<parameter=city>\nOslo\n{closer}\n{behind}{TAIL}"
    assert [problem.code for problem in LENIENT.parse(text).problems] == ["closer_in_text"]
    closed = text.replace(TAIL, "</parameter>\n" + TAIL)
    assert all(call.arguments["city"].startswith("Oslo\n" + closer) for call in STRICT.parse(closed).calls)


# --- what may stay in a value

TAG = re.compile(r"<[^<>]*(?:param|function|tool_call)[^<>]*>", re.IGNORECASE)
ENDS = {"missing_close_parameter", "drifted_closer"}
PIECES = ["</parameter>", "</ parameter>", "</PARAMETER/>", "<parameter=n>", "<parameter=note/>", "</function>",
          "</Function>", "</tool_call>", "x", "5"]  # fmt: skip


@pytest.mark.parametrize("pieces", list(itertools.product(PIECES, repeat=2)), ids="".join)
def test_lenient_keeps_a_tag_in_a_value_only_where_strict_reads_the_same(pieces):
    text = f"{HEAD}<parameter=city>\nOslo\n" + "\n".join(pieces) + f"\n{TAIL}"
    lenient = LENIENT.parse(text)
    strict = STRICT.parse(text)
    for call in lenient.calls:
        kept = [value for value in call.arguments.values() if isinstance(value, str) and TAG.search(value)]
        accounted = call in strict.calls or (strict.problems and strict.problems[0].status == "ambiguous")
        if not any(
            "param" in value.lower() for value in kept
        ):  # ends of calls are text, and the end is named
            accounted = accounted or not ENDS.isdisjoint(call.repairs)
        assert kept == [] or accounted
    assert all(call in [other._replace(repairs=()) for other in lenient.calls] for call in strict.calls)


# --- blanks that carry nothing


@pytest.mark.parametrize("blank", ["\n", "\r\n", "\t", " \n ", "\r", ""])
def test_blanks_between_tags_and_around_values_that_are_no_text_are_free(blank):
    parts = ["<tool_call>", "<function=w>", "<parameter=n>", "5", "</parameter>", "<parameter=list>", '["a"]',
             "</parameter>", "<parameter=unit>", "F", "</parameter>", "</function>", "</tool_call>"]  # fmt: skip
    assert STRICT.parse(blank.join(parts)).calls[0].arguments == {"n": 5, "list": ["a"], "unit": "F"}


def test_a_text_behind_crlf_is_mended_and_never_guessed_in_strict():
    text = write_tool_call("w", {"city": "Oslo"}).replace("\n", "\r\n")
    assert [problem.code for problem in STRICT.parse(text).problems] == ["crlf_framing"]
    assert LENIENT.parse(text).calls[0].arguments == {"city": "Oslo"}


@pytest.mark.parametrize("schema", [
    {"enum": ["F", "C"]}, {"const": "F"}, {"anyOf": [{"const": "F"}, {"type": "null"}]}, {"oneOf": [{"enum": ["F"]}]},
    {"allOf": [{"$ref": "#/$defs/u"}]}, {"$ref": "#/$defs/u"}, {"type": "string", "enum": ["F", " F"]},
])  # fmt: skip
def test_blanks_around_one_of_a_closed_list_are_free_unless_they_are_listed(schema):
    tools = [{"name": "w", "parameters": {"properties": {"u": schema}, "$defs": {"u": {"enum": ["F", "C"]}}}}]
    listed = " F" in schema.get("enum", ())
    got = ToolCallParser(tools).parse(write_tool_call("w", {"u": " F"}))
    assert got.calls[0].arguments == {"u": " F" if listed else "F"}
    tools[0]["parameters"]["properties"] = {"u": {"anyOf": [schema, {"type": "string"}]}}
    assert ToolCallParser(tools).parse(write_tool_call("w", {"u": " F"})).calls[0].arguments == {"u": " F"}


def test_a_call_behind_one_that_is_not_usual_is_read_like_any_other():
    good = "<tool_call><function=w><parameter=city>b</parameter></function></tool_call>"
    text = "<tool_call><function=w><parameter=city></parameter1></function></tool_call>\n" + good
    assert [call.arguments for call in LENIENT.parse(text).calls] == [{"city": ""}, {"city": "b"}]
    assert LENIENT.parse(good + good).calls[1].arguments == {"city": "b"}
