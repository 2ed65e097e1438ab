"""Constrained decoding: what a schema's answers must match, on real logits of the built-in tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dfkeval
from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.rows.messages import write_text
from dfkeval.backends._local import grammar
from dfkeval.backends.transformers import Transformers
from dfkeval.evaluation import constraints
from dfkeval.models import loader
from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.decode import Decoded, decode
from dfkeval.parsing.toolcall import ToolCallParser, write_tool_call
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Constraint, Request, Sampling
from tests.helpers.runs import (
    CAPTION,
    DFK,
    caption_gold,
    config_of,
    dfk_gold,
    gold_answers,
    write_answers,
    write_rows,
)

torch = pytest.importorskip("torch")
xgr = pytest.importorskip("xgrammar")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def compiler(tiny: loader.Loaded) -> grammar.Compiler:
    vocab = tiny.model.config.get_text_config().vocab_size
    return grammar.Compiler(tiny.processor.tokenizer, vocab, [tiny.processor.tokenizer.eos_token_id])


def constraint(schema: schemas.Schema, mode: Any = "constrained") -> Constraint:
    found = constraints.constraint(schema, mode)
    assert found is not None
    return found


def takes(compiler: grammar.Compiler, wanted: Constraint, text: str) -> bool:
    """Whether `text` is a whole answer of the constraint."""
    matcher = xgr.GrammarMatcher(compiler.compiled(wanted))
    return bool(matcher.accept_string(text)) and matcher.is_completed()


TEXT_SCHEMAS = [("dfk_label", "code"), ("dfk_label", "card"), ("dfk_text", None), ("dfk_explained", None)]


@pytest.mark.parametrize(("name", "variant"), TEXT_SCHEMAS)
def test_the_grammar_takes_what_training_writes_and_no_label_outside_the_set(
    compiler: grammar.Compiler, name: str, variant: str | None
) -> None:
    schema = schemas.load(name, variant)
    wanted = constraint(schema)
    assert wanted.kind == "grammar"
    for index in range(4):
        assert takes(compiler, wanted, write_text(dfk_gold(index), schema.form))
    label = dict(schema.form.printed).get("fitnah", "fitnah")
    right = write_text({"label": "fitnah", "analisis": 'Sebab "x" \\ <b>.'}, schema.form)
    assert takes(compiler, wanted, right)
    assert not takes(compiler, wanted, right.replace(label, "bohong"))
    assert not takes(compiler, wanted, right.replace("Label", "label"))
    assert not takes(compiler, wanted, write_text({"label": "fitnah", "analisis": ""}, schema.form))


def test_free_text_may_be_anything_visible_and_json_forms_follow_their_schema(
    compiler: grammar.Compiler,
) -> None:
    free = constraint(schemas.load("answer"))
    assert takes(compiler, free, "two\nlines") and not takes(compiler, free, "")
    keywords = constraint(schemas.load("keywords"))
    assert takes(compiler, keywords, '["a", "b"]')
    assert not takes(compiler, keywords, "[]") and not takes(compiler, keywords, '{"keywords": ["a"]}')


def test_a_tool_call_is_held_to_its_schema(compiler: grammar.Compiler) -> None:
    wanted = constraint(CAPTION)
    for index in range(4):
        call = write_tool_call("emit_caption_schema", caption_gold(index))
        assert takes(compiler, wanted, call)
        assert not takes(compiler, wanted, call + "\n" + call)
        assert not takes(compiler, wanted, "Here: " + call)
    assert not takes(compiler, wanted, write_tool_call("emit_caption_schema", {"setting": "moon"}))
    assert not takes(compiler, wanted, write_tool_call("other", {"setting": "indoor"}))


@pytest.mark.parametrize("dialect", ["qwen3.6", "qwen3.8"])
def test_a_call_in_json_s_own_words_is_taken_and_read_back(
    compiler: grammar.Compiler, dialect: Dialect
) -> None:
    wanted, parser = constraint(CAPTION), ToolCallParser(CAPTION.tools, dialect=dialect)
    for index in range(4):
        gold = caption_gold(index) | {"style": None, "mood": None}
        call = write_tool_call("emit_caption_schema", gold, dialect)
        assert "\nnull\n" in call and takes(compiler, wanted, call)
        assert [made.arguments for made in parser.parse(call).calls] == [gold]


def test_json_mode_takes_any_object_and_is_refused_where_the_answer_is_none() -> None:
    assert constraint(CAPTION, "json_mode") == Constraint(kind="json_object")
    assert constraints.reading("json_mode") == "json"
    with pytest.raises(ConfigError, match="marked text, not JSON"):
        constraint(DFK, "json_mode")
    with pytest.raises(ConfigError, match="a JSON array"):
        constraint(schemas.load("keywords"), "json_mode")


def asked(index: int, wanted: Constraint | None, words: int = 4) -> Request:
    parts = [{"type": "text", "text": f"kata nomor {index} " * words}]
    return Request(id=str(index), messages=[{"role": "user", "content": parts}], constraint=wanted)


def test_every_finished_answer_of_a_model_that_knows_nothing_of_the_form_is_valid(
    tiny: loader.Loaded,
) -> None:
    sampling = Sampling(max_new_tokens=160, temperature=1.0, stop=("</tool_call>",), seed=3)
    requests = [asked(index, constraint(CAPTION), 1 + index) for index in range(6)]
    found = list(Transformers(tiny, batch_size=4).generate(requests, sampling))
    finished = [each for each in found if each.finish_reason == "stop"]
    assert len(found) == 6 and len(finished) >= 3
    for each in found:
        read = decode(each.text, CAPTION, finished=each.finish_reason == "stop")
        assert isinstance(read, Decoded) == (each in finished), each.text
    free = [asked(index, None, 1 + index) for index in range(6)]
    for each in Transformers(tiny).generate(free, sampling):
        assert not isinstance(decode(each.text, CAPTION), Decoded)


def test_a_constrained_row_does_not_depend_on_free_and_constrained_neighbours(tiny: loader.Loaded) -> None:
    sampling = Sampling(max_new_tokens=24)
    mixed = [asked(index, constraint(DFK) if index % 2 else None, 1 + 3 * index) for index in range(6)]
    together = {each.id: each.text for each in Transformers(tiny).generate(mixed, sampling)}
    alone = {each.id: each.text for each in Transformers(tiny, batch_size=1).generate(mixed, sampling)}
    assert together == alone
    for index in range(6):
        assert together[str(index)].startswith("Label: ") is bool(index % 2)


def test_logits_above_the_tokenizer_are_masked_too(tiny: loader.Loaded) -> None:
    tokenizer, vocab = tiny.processor.tokenizer, tiny.model.config.get_text_config().vocab_size
    padded = grammar.Compiler(tokenizer, vocab + 64, [tokenizer.eos_token_id])
    processor = grammar.Constrained(padded, [padded.compiled(constraint(DFK))], [tokenizer.eos_token_id])
    logits = processor(torch.zeros((1, 3), dtype=torch.long), torch.zeros((1, vocab + 64)))
    allowed = torch.isfinite(logits[0]).nonzero().flatten().tolist()
    assert allowed and max(allowed) < vocab
    assert {tokenizer.decode([each])[0] for each in allowed} == {"L"}


def test_reasoning_is_free_and_the_grammar_begins_behind_its_block(tiny: loader.Loaded) -> None:
    sampling = Sampling(max_new_tokens=24, thinking=True, thinking_budget=6)
    found = next(iter(Transformers(tiny).generate([asked(1, constraint(DFK))], sampling)))
    assert found.thinking_cut and not found.unclosed_think
    assert found.reasoning and not found.reasoning.startswith("Label")
    assert found.text.startswith("Label: ")


def test_a_grammar_that_cannot_be_compiled_is_said_before_anything_is_asked(tiny: loader.Loaded) -> None:
    bad = asked(1, Constraint(kind="grammar", text="root ::= missing"))
    with pytest.raises(ConfigError, match="grammar cannot be compiled"):
        next(iter(Transformers(tiny).generate([bad], Sampling())))


def test_without_xgrammar_the_extra_is_named_and_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "xgrammar", None)
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    backend = {"kind": "transformers", "model": "tiny"}
    config = EvalConfig.model_validate({"data": data, "backend": backend, "modes": ["constrained"]})
    monkeypatch.setattr(loader, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    with pytest.raises(
        ConfigError, match=r'constrained decoding needs xgrammar: pip install "dfk\[constrained\]"'
    ):
        dfkeval.evaluate(config, tmp_path / "run")


def test_a_backend_that_cannot_constrain_is_refused_and_never_falls_back(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    answers = write_answers(tmp_path / "a.jsonl", gold_answers(DFK, 2))
    config = config_of(data, answers, ["validity"], modes=["constrained"])
    with pytest.raises(ConfigError, match="backend 'scripted' cannot constrain"):
        dfkeval.evaluate(config, tmp_path / "run")
    several = config_of(data, answers, ["validity"], modes=["free", "constrained"])
    with pytest.raises(ConfigError, match="backend 'scripted' cannot constrain"):
        dfkeval.evaluate_modes(several, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="one run has one mode"):
        dfkeval.evaluate(several, tmp_path / "run")


def test_free_and_constrained_on_the_same_rows_are_a_paired_comparison(
    tmp_path: Path, tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path / "test.jsonl", CAPTION, 6)
    fields = {
        "data": data, "backend": {"kind": "transformers", "model": "tiny"}, "metrics": ["validity"],
        "modes": ["free", "json_mode", "constrained"], "sampling": {"max_new_tokens": 160}, "resamples": 200,
    }  # fmt: skip
    config = EvalConfig.model_validate(fields)
    runs = dfkeval.evaluate_modes(config, tmp_path / "modes", backend=Transformers(tiny))
    assert [run.name for run in runs] == ["free", "json_mode", "constrained"]
    assert {path.name for path in (tmp_path / "modes").iterdir()} == {
        "free", "json_mode", "constrained", "comparison.md", "comparison.html",
    }  # fmt: skip
    pair = dfkeval.compare(tmp_path / "modes" / "free", tmp_path / "modes" / "constrained")
    assert pair.n == 6 and not pair.left_out
    valid = pair.differences["validity.schema_valid"]
    complete = runs[2].summary["metrics"]["validity.complete"]["value"]
    assert (valid.a, valid.b) == (0.0, complete) and complete > 0
    text = (tmp_path / "modes" / "comparison.md").read_text(encoding="utf-8")
    assert "free -> constrained" in text and "free -> json_mode" in text
    for line in (tmp_path / "modes" / "json_mode" / "completions.jsonl").read_text().splitlines():
        found = json.loads(line)
        assert found["text"].lstrip().startswith("{")
    monkeypatch.setattr("dfkeval.backends.start", lambda config: pytest.fail("nothing is left to ask"))
    again = dfkeval.evaluate_modes(config, tmp_path / "modes")
    assert [run.summary for run in again] == [run.summary for run in runs]


def test_the_command_prints_the_comparison_of_several_modes(
    tmp_path: Path, tiny: loader.Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from dfkeval.cli import app

    write_rows(tmp_path / "test.jsonl", DFK, 3)
    (tmp_path / "eval.yaml").write_text(
        "data: test.jsonl\nbackend: {kind: transformers, model: tiny}\nmetrics: [validity]\nresamples: 200\n"
        "modes: [free, constrained]\nsampling: {max_new_tokens: 12}\n"
    )
    monkeypatch.setattr(loader, "load", lambda *a, **k: tiny)
    done = CliRunner().invoke(app.app, ["run", str(tmp_path / "eval.yaml"), "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    assert "free -> constrained, 3 common rows" in done.stdout and "validity.schema_valid" in done.stdout
    for name in ("free/report.html", "constrained/report.html", "comparison.html"):
        assert str(tmp_path / "m" / name) in done.stdout and (tmp_path / "m" / name).is_file()
