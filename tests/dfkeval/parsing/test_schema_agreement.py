"""JSON Schema and answer class: one decides, the other is asked, and where they differ it is said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import jsonschema_rs
import pytest
from pydantic import AfterValidator, Field

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.schemas import BaseAnswer, Choice, Grounded, JsonForm, Prompt, Schema, ToolForm, Value
from dfkeval import Failure, decode, evaluate
from dfkeval.evaluation.grading import EvalItem, grade
from dfkeval.metrics import Scoring, validity
from dfkeval.parsing import schema_agreement
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.types import Completion, Request, Sample
from tests.helpers.runs import (
    CAPTION,
    DFK,
    answer_text,
    caption_gold,
    config_of,
    sample_of,
    write_answers,
    write_rows,
)

SHIPPED = [
    schemas.load(name, variant)
    for name in plugins.names(schemas.FAMILY)
    for variant in plugins.load(schemas.FAMILY, name).VARIANTS
]


def _even(value: list[str]) -> list[str]:
    if len(value) % 2:
        raise ValueError("wants pairs")
    return value


class Stricter(BaseAnswer):
    """A class with a rule that its JSON Schema does not show."""

    words: Annotated[list[str], AfterValidator(_even), Grounded()] = Field(default_factory=list)
    kind: Annotated[str, Choice()] = "a"


class Laxer(BaseAnswer):
    """A class whose JSON Schema was written by hand and says more than the class."""

    words: Annotated[list[str], Grounded()] = Field(default_factory=list)
    kind: Annotated[str, Choice()] = "a"

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        schema = super().model_json_schema(*args, **kwargs)
        schema["properties"]["kind"]["enum"] = ["a", "b"]
        schema["properties"]["words"]["maxItems"] = 2
        return schema


def schema_of(answer: type[BaseAnswer], form: Any) -> Schema:
    return Schema("own", "one", answer, Prompt((Value("text", otherwise=""),)), form)


FORMS = [ToolForm("emit", "Emit."), JsonForm()]


def written(value: dict[str, Any], form: Any) -> str:
    return write_tool_call("emit", value) if isinstance(form, ToolForm) else json.dumps(value)


def judged(text: str, schema: Schema) -> Sample:
    item = EvalItem(Request(id="r", messages=[]), "g", None, None, "", "k")
    return grade([item], {"r": Completion(id="r", text=text)}, schema)[0]


@pytest.mark.parametrize("form", FORMS, ids=["tool", "json"])
def test_what_only_the_class_refuses_is_an_outcome_of_its_own_with_its_place(form: Any) -> None:
    schema = schema_of(Stricter, form)
    sample = judged(written({"words": ["one"]}, form), schema)
    assert (sample.outcome, sample.value) == ("class_refused", None)
    assert sample.differs is not None and sample.differs.startswith("/words: the answer class refuses")
    assert judged(written({"words": ["one", "two"]}, form), schema).outcome == "ok"


@pytest.mark.parametrize("form", FORMS, ids=["tool", "json"])
def test_what_only_the_json_schema_refuses_stays_invalid_and_is_said(form: Any) -> None:
    schema = schema_of(Laxer, form)
    for value, place in (({"kind": "c"}, "/kind"), ({"words": ["x", "y", "z"]}, "/words")):
        sample = judged(written(value, form), schema)
        assert sample.outcome == "schema_invalid"
        assert sample.differs is not None
        assert sample.differs.startswith(f"{place}: the JSON Schema refuses what the answer class takes")
    both = judged(written({"kind": "c", "more": 1}, form), schema)
    assert (both.outcome, both.differs) == ("schema_invalid", None)


def test_the_json_schema_decides_and_the_difference_is_counted() -> None:
    schema = schema_of(Stricter, FORMS[0])
    samples = [judged(written({"words": words}, FORMS[0]), schema) for words in (["a"], ["a", "b"], ["c"])]
    table = validity.METRIC.measure(samples, Scoring(schema))
    found = validity.METRIC.reduce(table.values.sum(axis=0, keepdims=True), table.columns)
    assert found["schema_valid"][0] == 1.0
    assert found["pydantic"][0] == pytest.approx(1 / 3)
    assert found["differs"][0] == pytest.approx(2 / 3)
    assert [each["place"][:6] for each in table.details["pydantic_differs"]] == ["/words", "/words"]


# --- fuzz: on the shipped schemas the two never differ


STRINGS = ["", " ", "\x00", "dog", "狗", "😀" * 64, "x" * 65, "outdoor", "Netral", "netral", "null", "a\nb"]
ODD: list[Any] = [None, True, False, 0, 1, 1.0, -2.5, 10**20, [], {}, [[]], [None], {"name": "x"}, *STRINGS]


def drawn(shape: dict[str, Any], root: dict[str, Any], rng: random.Random) -> Any:
    """A value that fits `shape`, most of the time."""
    if "$ref" in shape:
        return drawn(root["$defs"][shape["$ref"].rpartition("/")[2]], root, rng)
    if "const" in shape:
        return shape["const"]
    if "enum" in shape:
        return rng.choice(shape["enum"])
    if "anyOf" in shape:
        return drawn(rng.choice(shape["anyOf"]), root, rng)
    match shape.get("type"):
        case "object":
            properties = shape.get("properties", {})
            kept = [name for name in properties if name in shape.get("required", ()) or rng.random() < 0.7]
            return {name: drawn(properties[name], root, rng) for name in kept}
        case "array":
            return [drawn(shape.get("items", {}), root, rng) for _ in range(rng.randint(0, 3))]
        case "string":
            return rng.choice(STRINGS)
        case "null":
            return None
        case _:
            return rng.choice(ODD)


def mutated(value: Any, rng: random.Random) -> Any:
    """The value with something changed somewhere."""
    if rng.random() < 0.3 or not isinstance(value, dict | list) or not value:
        return rng.choice([rng.choice(ODD), [value] * rng.randint(1, 9), {"extra": value}])
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [mutated(each, rng) if index == place else each for index, each in enumerate(value)]
    key = rng.choice(list(value))
    match rng.randrange(4):
        case 0:
            return {name: each for name, each in value.items() if name != key}
        case 1:
            return value | {rng.choice(["extra", key.upper(), ""]): rng.choice(ODD)}
        case _:
            return value | {key: mutated(value[key], rng)}


def disagreements(schema: Schema, count: int, seed: int) -> list[tuple[Any, bool, bool]]:
    rng = random.Random(seed)
    rs = jsonschema_rs.validator_for(schema.json_schema)
    found = []
    for _ in range(count):
        value = drawn(schema.json_schema, schema.json_schema, rng)
        for _ in range(rng.choice([0, 1, 1, 2])):
            value = mutated(value, rng)
        if not isinstance(value, dict):
            continue
        fits, taken = rs.is_valid(value), schema_agreement.class_refusal(value, schema.answer) is None
        if fits != taken:
            found.append((value, fits, taken))
    return found


@pytest.mark.parametrize("schema", SHIPPED, ids=lambda schema: f"{schema.name}-{schema.variant}")
def test_json_schema_and_class_never_differ_on_shipped_schemas(schema: Schema) -> None:
    assert disagreements(schema, 3000, 7)[:3] == []


@pytest.mark.slow
@pytest.mark.parametrize("schema", SHIPPED, ids=lambda schema: f"{schema.name}-{schema.variant}")
def test_json_schema_and_class_never_differ_on_a_hundred_thousand_documents(schema: Schema) -> None:
    assert disagreements(schema, 100_000, 8)[:3] == []


def test_the_fuzz_sees_both_kinds_of_documents_and_both_kinds_of_difference() -> None:
    rng = random.Random(3)
    checker = jsonschema.Draft202012Validator(CAPTION.json_schema)
    values = [drawn(CAPTION.json_schema, CAPTION.json_schema, rng) for _ in range(300)]
    values += [mutated(value, rng) for value in values]
    share = sum(checker.is_valid(value) for value in values if isinstance(value, dict)) / len(values)
    assert 0.2 < share < 0.9
    assert any(fits for _, fits, _ in disagreements(schema_of(Stricter, FORMS[0]), 2000, 1))
    assert any(taken for _, _, taken in disagreements(schema_of(Laxer, FORMS[0]), 2000, 1))


# --- half characters: what JSON escapes can write and no file can hold


@pytest.mark.parametrize("escape", ["\\ud83d", "x\\udc00y"])
def test_half_a_character_in_an_answer_is_bad_json_and_the_run_goes_on(tmp_path: Path, escape: str) -> None:
    bad = (
        "<tool_call>\n<function=emit_caption_schema>\n<parameter=actions>\n"
        f'["{escape}"]\n</parameter>\n</function>\n</tool_call>'
    )
    found = decode(bad, "caption")
    assert isinstance(found, Failure) and found.problems[0].code == "lone_surrogate"
    data = write_rows(tmp_path / "t.jsonl", CAPTION, 3)
    answers = [
        ("r000", bad),
        ("r001", answer_text(caption_gold(1), CAPTION)),
        ("r002", bad.replace("actions", "setting")),
    ]
    config = config_of(data, write_answers(tmp_path / "a.jsonl", answers), ["validity", "fields", "rouge"])
    run = evaluate(config, tmp_path / "run")
    assert [sample.outcome for sample in run.samples] == ["bad_json", "ok", "schema_invalid"]
    assert run.summary["metrics"]["validity.schema_valid"]["value"] == pytest.approx(1 / 3)


def test_a_label_outside_the_set_is_no_difference_of_opinion() -> None:
    assert sample_of(0, DFK, "Label: bohong\n\nAnalisis: x").differs is None
