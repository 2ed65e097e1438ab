"""A row is asked with the bytes that it was trained with, by local backends, servers and TRL's own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dfkdata import Record, convert, load_rows, schemas
from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.rows.huggingface import to_dataset
from dfkeval import EvalConfig, evaluate
from dfkeval.backends import Request, Sampling
from dfkeval.backends._local import likelihood, prompts
from dfkeval.backends._openai import protocol
from dfkeval.backends.scripted import Config as ScriptedConfig
from dfkeval.evaluation.grading import eval_item
from dfkeval.inference.predictor import Predictor, default_sampling
from dfkeval.models.metadata import ModelMetadata
from dfkeval.models.rendering import render_sample, thinks
from dfkeval.types import GoldAnswer
from tests.helpers.models import build_processor, build_tokenizer, released_template, text
from tests.helpers.rows import rows_of

TEMPLATES = ("qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_vl", "qwen2_5_vl")
SCHEMA = schemas.load("dfk_label")
PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "cari", "parameters": PARAMETERS}}]
CALL = {"type": "function", "function": {"name": "cari", "arguments": {"q": "dfk", "kosong": None}}}
PAST: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "plain": [{"role": "assistant", "content": [text("Dua.")]}],
    "key": [{"role": "assistant", "content": [text("Dua.")], "reasoning_content": "dulu"}],
    "other key": [{"role": "assistant", "content": [text("Dua.")], "thinking": "dulu"}],
    "tags": [{"role": "assistant", "content": [text("<think>\ndulu\n</think>\n\nDua.")]}],
    "tool": [
        {"role": "assistant", "content": [], "reasoning": "dulu", "tool_calls": [CALL]},
        {"role": "tool", "content": [text("hasil")]},
        {"role": "assistant", "content": [text("Dua.")]},
    ],
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"enable_thinking": True},
    {"enable_thinking": True, "reasoning_effort": "low"},
    {"enable_thinking": True, "reasoning_effort": "medium", "preserve_thinking": False},
    {"reasoning_effort": "xhigh"},
    {"preserve_thinking": True},
]


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    return {name: build_processor(released_template(name)) for name in TEMPLATES}


def row(past: str, options: dict[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": [text("1+1?")]}, *PAST[past]] if PAST[past] else []
    turns += [
        {"role": "user", "content": [text("2+2?")]},
        {"role": "assistant", "content": [text("Label: netral")]},
    ]
    made: dict[str, Any] = {"id": "r", "images": [], "messages": turns}
    made |= {"tools": TOOLS} if past == "tool" else {}
    return made | ({"chat_template_kwargs": options} if options else {})


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("past", PAST)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_prompt_of_an_evaluation_is_the_prompt_of_training(
    template: str, past: str, options: dict[str, Any], processors: dict[str, Any]
) -> None:
    processor, made = processors[template], row(past, options)
    request = eval_item(made, SCHEMA).request
    sampling = Sampling(thinking=thinks(made))
    try:
        trained = render_sample(made, processor).prompt
    except DataError as error:  # this template does not read an option of the row: neither trains nor asks
        assert "does not read" in str(error)
        asked_for = {name for name in options if name != "enable_thinking"}
        if any(name not in processor.chat_template for name in asked_for):
            with pytest.raises(DataError, match="does not read"):
                prompts.render(processor, request, sampling)
        return
    assert prompts.render(processor, request, sampling) == trained
    gold = GoldAnswer(request=request, turn=made["messages"][-1])
    (inputs, scored) = (lambda row: (row.inputs["input_ids"][0], row.scored))(
        likelihood._encoded(gold, processor, sampling)
    )
    assert processor.tokenizer.decode(inputs[: len(inputs) - scored]).startswith(trained.removesuffix("\n"))


@pytest.mark.parametrize("past", PAST)
@pytest.mark.parametrize("effort", [None, "low", "medium", "xhigh"])
def test_a_server_with_that_template_is_sent_what_gives_the_same_prompt(
    past: str, effort: str | None, processors: dict[str, Any]
) -> None:
    processor = processors["qwen3_8"]
    made = row(past, {"enable_thinking": True} | ({"reasoning_effort": effort} if effort else {}))
    payload = protocol.body(eval_item(made, SCHEMA).request, Sampling(thinking=True), "m")
    turns = []
    for turn in payload["messages"]:  # as vLLM hands turns to the template: arguments as objects
        calls = [
            call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
            for call in turn.get("tool_calls", ())
        ]
        turns.append(turn | ({"tool_calls": calls} if calls else {}))
        for call in calls:
            call["function"]["arguments"].pop("kosong")
    asked = processor.apply_chat_template(
        turns, tools=payload.get("tools"), tokenize=False, add_generation_prompt=True,
        **payload["chat_template_kwargs"],
    )  # fmt: skip
    assert asked == render_sample(made, processor).prompt
    for turn in payload["messages"]:
        if turn["role"] == "tool":
            assert turn["tool_call_id"] == payload["messages"][1]["tool_calls"][0]["id"] == "call_1_0"


def test_the_effort_of_the_sampling_is_above_that_of_the_row_and_needs_thinking(
    processors: dict[str, Any],
) -> None:
    request = Request(
        id="r",
        messages=[{"role": "user", "content": "2+2?"}],
        template_options={"reasoning_effort": "xhigh"},
    )
    sampling = Sampling(thinking=True, reasoning_effort="low")
    assert "effort is set to low" in prompts.render(processors["qwen3_8"], request, sampling)
    assert protocol.body(request, sampling, "m")["chat_template_kwargs"] == {
        "reasoning_effort": "low", "enable_thinking": True,
    }  # fmt: skip
    with pytest.raises(DataError, match="does not read reasoning_effort"):
        prompts.render(processors["qwen3_6"], request, sampling)
    with pytest.raises(DataError, match="Unexpected reasoning effort"):
        prompts.render(processors["qwen3_8"], request, Sampling(thinking=True, reasoning_effort="huge"))
    with pytest.raises(ConfigError, match="set thinking: true"):
        bind({"reasoning_effort": "low"}, Sampling, "sampling")


def test_a_model_is_asked_with_the_effort_that_it_was_trained_with() -> None:
    trained = ModelMetadata(thinking=True, reasoning_effort="low")
    sampling = default_sampling(SCHEMA, trained)
    assert (sampling.thinking, sampling.reasoning_effort) == (True, "low")
    assert default_sampling(SCHEMA, ModelMetadata()) == default_sampling(SCHEMA)


def test_rows_that_say_how_they_are_asked_are_not_asked_otherwise(tmp_path: Path) -> None:
    made = [row("none", {"enable_thinking": True}) | {"id": str(number)} for number in range(3)]
    path = tmp_path / "rows.jsonl"
    answers = tmp_path / "answers.jsonl"
    said = [{"id": each["id"], "text": "Label: netral\n\nAnalisis: x"} for each in made]
    answers.write_text("".join(json.dumps(each) + "\n" for each in said), encoding="utf-8")
    path.write_text("".join(json.dumps(each) + "\n" for each in made), encoding="utf-8")
    backend = {"kind": "scripted", "completions": str(answers)}
    base = {"data": path, "schema": "dfk_label", "backend": backend}
    with pytest.raises(
        ConfigError, match=r"the rows say enable_thinking: true, and sampling\.thinking is false"
    ):
        evaluate(EvalConfig.model_validate(base), tmp_path / "off")
    run = evaluate(EvalConfig.model_validate(base | {"sampling": {"thinking": True}}), tmp_path / "on")
    assert len(run.samples) == 3


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"loss": False}, {"train": False}, {"loss_scale": 0.0}], ids=str
)
def test_a_turn_that_must_not_be_learned_is_no_gold_answer(flag: dict[str, Any]) -> None:
    made = row("none", {})
    made["messages"][-1] = {"role": "assistant", "content": [text("Label: netral\n\nAnalisis: x")]}
    assert eval_item(made, SCHEMA).gold == {"label": "netral", "analisis": "x"}
    made["messages"][-1] |= flag
    assert eval_item(made, SCHEMA).gold is None


def test_a_prediction_is_asked_with_the_options_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("", encoding="utf-8")
    backend = ScriptedConfig(completions=tmp_path / "answers.jsonl")
    predictor = Predictor(schema="dfk_label", backend=backend)
    turns = [{"role": "user", "content": [text("2+2?")]}]
    options = {"reasoning_effort": "low", "enable_thinking": True}
    record = Record(id="1", group="1", source="x:1", messages=turns, chat_template_kwargs=options)
    assert predictor.item(record).request.template_options == {"reasoning_effort": "low"}


@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3_6", "qwen3_8"])
def test_trl_reads_prompt_completion_rows_as_the_text_that_is_trained_on(
    template: str, processors: dict[str, Any], tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl.data_utils")
    processor, tokenizer = processors[template], build_tokenizer(released_template(template))
    rows: list[dict[str, Any]] = []
    efforts = [{}, {"reasoning_effort": "low"}] if template == "qwen3_8" else [{}]
    for answer in ({}, {"reasoning_content": "renung"}, {"content": "<think>renung</think>Empat."}):
        for past in (None, {}, {"reasoning": "dulu"}, {"weight": 0}):
            for effort in efforts:
                question = {"role": "user", "content": f"2+2? {len(rows)}"}
                turns = [question, {"role": "assistant", "content": "Empat."} | answer]
                if past is not None:
                    asked = {"role": "user", "content": "1+1?"}
                    turns = [asked, {"role": "assistant", "content": "Dua."} | past, *turns]
                options = {"enable_thinking": True} | effort
                rows.append({"id": str(len(rows)), "messages": turns, "chat_template_kwargs": options})
    for layout in ("messages", "prompt_completion"):
        convert(rows, tmp_path / layout, format="messages", to=layout, validation=0)
    ours = {row["id"]: render_sample(row, processor) for row in rows_of(tmp_path / "messages", "train")}
    assert len(ours) == len(rows)
    for row in rows_of(tmp_path / "prompt_completion", "train"):
        pair = {"prompt": row["prompt"], "completion": row["completion"]}
        text = trl.apply_chat_template(pair, tokenizer, **row["chat_template_kwargs"])
        parts = ours[row["id"]]
        whole = parts.prompt + parts.empty_think + parts.answer + parts.suffix
        assert (text["prompt"], text["prompt"] + text["completion"]) == (parts.prompt, whole)


def function(name: str = "cari", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "d", **more}


#: How a definition is written -> the `tools` of a row.
FORMS: dict[str, Any] = {
    "openai": [{"type": "function", "function": function(parameters=PARAMETERS)}],
    "bare": [function(parameters=PARAMETERS)],
    "mcp": [function(inputSchema=PARAMETERS)],
    "mcp list": [{"tools": [function(inputSchema=PARAMETERS)]}],
    "anthropic": [function(input_schema=PARAMETERS)],
    "gemini": [{"function_declarations": [function(parameters=PARAMETERS)]}],
    "bedrock": [{"toolSpec": function(inputSchema={"json": PARAMETERS})}],
    "table": [function(parameters=PARAMETERS["properties"])],
    "columns": [{"type": "function", "function": function(parameters={**PARAMETERS, "required": None})}],
}


@pytest.mark.parametrize("form", FORMS)
def test_tools_of_every_form_are_shown_alike_by_training_evaluation_and_servers(
    form: str, processors: dict[str, Any], tmp_path: Path
) -> None:
    written = {**row("none", {}), "tools": FORMS[form]}
    usual = {**row("none", {}), "tools": FORMS["openai"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(written) + "\n", encoding="utf-8")
    (loaded,) = load_rows(tmp_path / "rows.jsonl")
    assert loaded["tools"] == FORMS["openai"]
    (from_hub,) = to_dataset([written])
    assert from_hub["tools"] == FORMS["openai"]
    processor, sampling = processors["qwen3_5_nothink"], Sampling()
    expected = render_sample(usual, processor).prompt
    assert '"cari"' in expected
    for made in (written, loaded):
        request = eval_item(made, SCHEMA).request
        assert render_sample(made, processor).prompt == expected
        assert prompts.render(processor, request, sampling) == expected
        assert protocol.body(request, sampling, "m", "vllm")["tools"] == FORMS["openai"]


def test_a_definition_that_cannot_be_read_is_refused_alike(
    processors: dict[str, Any], tmp_path: Path
) -> None:
    bad = {**row("none", {}), "tools": [{"type": "web_search", "name": "web"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(bad) + "\n", encoding="utf-8")
    (loaded,) = load_rows(tmp_path / "rows.jsonl")
    assert loaded["tools"] == bad["tools"]
    request = eval_item(bad, SCHEMA).request
    for refused in (
        lambda: render_sample(loaded, processors["qwen3_5_nothink"]),
        lambda: render_sample(bad, processors["qwen3_5_nothink"]),
        lambda: prompts.render(processors["qwen3_5_nothink"], request, Sampling()),
        lambda: protocol.body(request, Sampling(), "m", "vllm"),
        lambda: list(to_dataset([bad])),
    ):
        with pytest.raises(DataError, match=r"row r: tools\[0\]: tool 'web' is of type 'web_search'"):
            refused()
