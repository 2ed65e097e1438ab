"""The official JSON-Schema-Test-Suite, through the engine and through the parser.

The suite is that of json-schema-org, snapshot 44401e0 of 2026-08-22; without a checkout (`tests/helpers/suites.py` says
where it is looked for) the tests are skipped."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from dfkdata.common.json_schema import SchemaDocument, SchemaError
from dfkdata.common.json_schema._memoised import Memoised
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from tests.helpers.suites import suite

#: Folder -> `$schema` of its draft.
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
#: (folder, number of tests, number of those whose schema refers to another document or meta-schema).
PARTS = [
    ("draft2020-12", 1299, 53),
    ("draft2020-12/optional", 162, 5),
    ("draft2019-09", 1259, 40),
    ("draft2019-09/optional", 158, 3),
    ("draft7", 927, 27),
    ("draft7/optional", 118, 2),
]
#: The engine follows `$recursiveRef` out of the resource that a part lies in only from the root.
ONLY_WHOLE = ("recursiveRef: $recursiveRef with nesting",)


def groups(part: str) -> list[tuple[str, Any, list[dict[str, Any]]]]:
    """(name, schema with its draft, tests) of each group of a folder."""
    made = []
    for path in sorted((suite("JSON-Schema-Test-Suite") / "tests" / part).glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {"$schema": DRAFTS[part.partition("/")[0]], **schema}
            made.append(
                (f"{path.name.removesuffix('.json')}: {group['description']}", schema, group["tests"])
            )
    return made


def reader(document: SchemaDocument) -> Memoised | None:
    """What decides instead of the engine where a schema combines its parts in too many ways."""
    try:
        return document.memoised
    except SchemaError:  # it has dynamic references
        return None


@pytest.mark.parametrize(("part", "total", "remote"), PARTS)
def test_no_verdict_of_the_official_suite_is_wrong(part: str, total: int, remote: int) -> None:
    counts: Counter[str] = Counter()
    wrong = []
    for name, schema, tests in groups(part):
        try:
            document = SchemaDocument(schema)
        except SchemaError as error:
            assert "inside the same schema" in str(error) or "is not known" in str(error), name
            counts["refused"] += len(tests)
            continue
        whole = document.validator(document.root)
        inside = whole if name in ONLY_WHOLE else document.validator(document.root, document.root)
        memoised = reader(document)
        for test in tests:
            verdicts = {
                whole.is_valid(test["data"]), inside.is_valid(test["data"]), not whole.issues(test["data"])
            }  # fmt: skip
            if memoised is not None:
                verdicts.add(not memoised.issues((document.root,), test["data"]))
                counts["memoised"] += 1
            counts["right"] += verdicts == {test["valid"]}
            if verdicts != {test["valid"]}:
                wrong.append(f"{name}: {test['description']}: {verdicts}")
    assert wrong == []
    assert counts.pop("memoised") >= 0.9 * (total - remote)
    assert counts == {"right": total - remote, "refused": remote}


@pytest.mark.parametrize("part", [part for part, _, _ in PARTS])
def test_the_parser_takes_the_arguments_that_the_suite_calls_valid(part: str) -> None:
    wrong = []
    for name, schema, tests in groups(part):
        objects = [test for test in tests if isinstance(test["data"], dict)]
        if not isinstance(schema, dict) or not objects:
            continue
        try:
            parser = ToolCallParser([{"name": "f", "parameters": schema}], dialect="hermes")
        except SchemaError as error:
            if "must describe an object" in str(error):
                wrong += [f"{name}: {test['description']}" for test in objects if test["valid"]]
            continue
        for test in objects:
            result = parser.parse(write_tool_call("f", test["data"], dialect="hermes"))
            if result.ok != test["valid"]:
                wrong.append(f"{name}: {test['description']}: {result.problems}")
            elif result.ok and result.calls[0].arguments != test["data"]:
                wrong.append(f"{name}: {test['description']}: {result.calls}")
    assert wrong == []
