"""Public test data through the parser: the calls of BFCL, and the documents of JSONSchemaBench.

    pip install --no-deps bfcl-eval
    git clone https://github.com/guidance-ai/jsonschemabench $DFK_SUITES/jsonschemabench

Without them these tests are skipped."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.json_schema import SchemaError, schema_validator
from dfkeval.parsing.coercion import Slot
from dfkeval.parsing.toolcall import ToolCallParser, parse_tool_calls, write_tool_call
from tests.helpers.suites import package_data, suite

DIALECTS = ("qwen3.5", "qwen3.6")


def same(first: Any, second: Any) -> bool:
    """Return whether two JSON values are equal and of the same types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


# --- BFCL --------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a value of a gold call, in which each key of an object holds a list of what is right."""
    if isinstance(value, dict):
        return {key: first(options) for key, options in value.items() if options != [""]}
    return [plain(item) for item in value] if isinstance(value, list) else value


def first(options: Any) -> Any:
    if not isinstance(options, list):
        return plain(options)
    return plain(next((option for option in options if option != ""), None))


def gold_calls(data: Path) -> list[tuple[list[dict[str, Any]], str, dict[str, Any]]]:
    """Return (tools, name, arguments) of each gold call; an argument that may be missing is."""
    made = []
    for path in sorted((data / "possible_answer").glob("*.json")):
        lines = (data / path.name).read_text(encoding="utf-8").splitlines()
        rows = {row["id"]: row for row in map(json.loads, lines)}
        for answer in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            for call in answer["ground_truth"]:
                if not isinstance(call, dict):
                    continue  # multi-turn rows hold Python code
                for name, given in call.items():
                    arguments = {key: first(options) for key, options in given.items() if options[:1] != [""]}
                    made.append((rows[answer["id"]]["function"], name, arguments))
    return made


def test_gold_calls_of_bfcl_are_read_back_with_their_types() -> None:
    calls = gold_calls(package_data("bfcl_eval", "data"))
    counts: Counter[tuple[bool, str]] = Counter()
    wrong = []
    for tools, name, arguments in calls:
        schema = next(tool["parameters"] for tool in tools if tool["name"] == name)
        valid = schema_validator(schema).is_valid(arguments)
        for dialect in DIALECTS:
            result = parse_tool_calls(write_tool_call(name, arguments, dialect), tools, dialect=dialect)
            if not result.ok:
                counts[valid, "flagged"] += 1
            elif same(result.calls[0].arguments, arguments):
                counts[valid, "exact"] += 1
            else:
                counts[valid, "other type"] += 1
                read = result.calls[0].arguments
                wrong += [schema["properties"][key].get("type") for key, value in arguments.items()
                          if valid and not same(read.get(key), value)]  # fmt: skip
    assert len(calls) >= 3000, counts
    total = sum(count for (valid, _), count in counts.items() if valid)
    assert counts[True, "exact"] >= 0.999 * total, counts
    assert set(wrong) <= {"any"}  # a definition that says nothing about the type: bare text stays text


# --- JSONSchemaBench ---------------------------------------------------------------------------------------


#: Why a schema is refused that jsonschema-rs reads: another document is named, or nothing is described.
REFUSED = ("only references inside the same schema", "refers to itself and describes nothing")


def check_documents(count: int, seed: int) -> Counter[str]:
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    files = sorted((suite("jsonschemabench") / "maskbench" / "data").glob("*.json"))
    counts: Counter[str] = Counter()
    for path in random.Random(seed).sample(files, min(count, len(files))):
        case = json.loads(path.read_text(encoding="utf-8"))
        try:
            peer = jsonschema_rs.validator_for(case["schema"], validate_formats=False)
        except (ValueError, jsonschema_rs.ValidationError):
            peer = None  # it reads no pattern that JavaScript reads only without the flag `u`
        try:
            own = schema_validator(case["schema"])
        except SchemaError as error:
            assert peer is None or any(reason in str(error) for reason in REFUSED), (path.name, error)
            counts["refused"] += 1
            continue
        if peer is None:
            assert all(own.is_valid(test["data"]) == test["valid"] for test in case["tests"]), path.name
            counts["read here alone"] += 1
            continue
        parser = parser_of(case["schema"])
        for test in case.get("tests", ()):
            assert own.is_valid(test["data"]) == peer.is_valid(test["data"]), (path.name, test)
            counts["documents"] += 1
            if parser is not None and isinstance(test["data"], dict) and own.is_valid(test["data"]):
                counts[read_back(parser, test["data"], path.name)] += 1
    return counts


def parser_of(schema: Any) -> ToolCallParser | None:
    try:
        return ToolCallParser([{"name": "f", "parameters": schema}], dialect="qwen3.6")
    except SchemaError as error:
        assert "must describe an object" in str(error) or "JSON Schema object" in str(error)
        return None


def read_back(parser: ToolCallParser, data: dict[str, Any], name: str) -> str:
    """Write a document as a call and read it: "exact", "flagged", or "text" for values that may be text."""
    result = parser.parse(write_tool_call("f", data, "qwen3.6"))
    if not result.ok:
        return "flagged"
    read = result.calls[0].arguments
    if same(read, data):
        return "exact"
    for key, value in data.items():
        slot: Slot | None = parser._tools["f"].slot(key)
        assert slot is not None
        numbers = type(value) in (int, float) and read[key] == value
        assert same(read[key], value) or numbers or slot.types is None or "string" in slot.types, (name, key)
    return "text"


def test_documents_of_jsonschemabench_are_judged_as_jsonschema_rs_does() -> None:
    counts = check_documents(400, 0)
    assert counts["documents"] >= 800, counts
    assert counts["exact"] >= 0.85 * (counts["exact"] + counts["text"] + counts["flagged"]), counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_documents_of_jsonschemabench_are_judged_as_jsonschema_rs_does(seed: int) -> None:
    counts = check_documents(3000, seed)
    assert counts["documents"] >= 6000, counts
