"""Soft matches of fields: what means the same counts, what does not stays an error, and exact values stay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfkeval import compare, evaluate
from dfkeval.metrics import Scoring, _soft_match, fields
from dfkeval.models.text_encoder import TextEncoder
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.types import Sample
from tests.helpers.runs import CAPTION, config_of, minilm, write_answers, write_rows


def sample(index: int, gold: dict[str, Any], said: dict[str, Any] | None) -> Sample:
    name = str(index)
    outcome = "ok" if said is not None else "no_call"
    return Sample(id=name, group=name, outcome=outcome, gold=gold, value=said, lenient=said, text="")


def values(samples: list[Sample], options: fields.Options) -> dict[str, float]:
    table = fields.METRIC.measure(samples, Scoring(CAPTION, {"fields": options}))
    found = fields.METRIC.reduce(table.values.sum(axis=0, keepdims=True), table.columns)
    return {name: float(value[0]) for name, value in found.items()}


@pytest.fixture(scope="module")
def options() -> fields.Options:
    return fields.Options(model=str(minilm()), threshold=0.7)


GOLD = {
    "subjects": [{"name": "dog", "attributes": ["small"]}, {"name": "car", "attributes": []}],
    "actions": ["running on the grass"],
}


def test_words_of_the_same_meaning_match_and_others_do_not(options: fields.Options) -> None:
    said = {
        "subjects": [{"name": "puppy", "attributes": ["little"]}, {"name": "banana", "attributes": []}],
        "actions": ["runs across the grass"],
    }
    got = values([sample(0, GOLD, said)], options)
    assert got["f1"] == 0.0
    assert got["subjects.soft_f1"] == pytest.approx(0.5)  # puppy is a dog, a banana is no car
    assert (got["attributes.soft_f1"], got["actions.soft_f1"]) == (1.0, 1.0)
    assert got["soft_f1"] == pytest.approx(0.75)


def test_gold_against_itself_is_best_and_an_invalid_answer_worst(options: fields.Options) -> None:
    best, worst = values([sample(0, GOLD, GOLD)], options), values([sample(0, GOLD, None)], options)
    for name in (name for name in best if "soft" in name):
        assert best[name] == 1.0, name
        assert worst[name] == 0.0, name


def test_a_text_matches_one_text_only(options: fields.Options) -> None:
    gold = {"actions": ["dog"]}
    got = values([sample(0, gold, {"actions": ["puppy", "dog", "small dog"]})], options)
    assert got["actions.soft_precision"] == pytest.approx(1 / 3)
    assert got["actions.soft_recall"] == 1.0


def test_a_soft_value_is_never_below_the_exact_one(options: fields.Options) -> None:
    rng = np.random.default_rng(1)
    nouns = ["dog", "puppy", "cat", "kitten", "car", "truck", "tree", "狗", "собака", ""]
    samples = []
    for index in range(40):
        gold, said = ({"actions": list(rng.choice(nouns, rng.integers(0, 4)))} for _ in range(2))
        samples.append(sample(index, gold, said))
    got = values(samples, options)
    assert got["actions.soft_f1"] >= got["actions.f1"] > 0


def test_without_an_encoder_there_are_no_soft_values() -> None:
    got = values([sample(0, GOLD, GOLD)], fields.Options())
    assert got["f1"] == 1.0 and not any("soft" in name for name in got)


def test_greedy_matching_takes_the_most_similar_pair_first() -> None:
    def vector(degrees: float) -> np.ndarray:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    found = {"a": vector(0), "b": vector(20), "x": vector(18), "y": vector(60)}
    gold = Counter({("k", "a"): 1, ("k", "b"): 1})
    said = Counter({("k", "x"): 1, ("k", "y"): 1})
    assert (
        _soft_match.matches(gold, said, found, 0.9) == 1
    )  # x goes to b, which leaves a and y, 60 degrees apart
    assert _soft_match.matches(gold, said, found, 0.45) == 2
    assert _soft_match.matches(gold, gold, {}, 0.9) == 2


def test_sentence_vectors_are_mean_token_states_whatever_the_batch() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    texts = ["dog", "a small wooden bench near the water", "", "狗在跑", "x " * 600]
    encoder = TextEncoder(str(minilm()), None, "float32")
    whole, alone = encoder.sentences(texts, 4096), {t: encoder.sentences([t], 1)[t] for t in texts}
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    net = transformers.AutoModel.from_pretrained(minilm()).eval()
    with torch.inference_mode():
        plain = net(**tokenizer(texts[1], return_tensors="pt"))[0][0].mean(dim=0).numpy()
    assert np.abs(whole[texts[1]] - plain / np.linalg.norm(plain)).max() < 1e-5
    for text in texts:
        assert np.abs(whole[text] - alone[text]).max() < 1e-5
        assert np.linalg.norm(whole[text]) == pytest.approx(1.0)


def test_runs_with_other_thresholds_are_not_compared(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "t.jsonl", CAPTION, 4)
    answers = write_answers(
        tmp_path / "a.jsonl", [(f"r{i:03d}", write_tool_call("emit_caption_schema", GOLD)) for i in range(4)]
    )
    runs = [
        evaluate(
            config_of(data, answers, ["fields"], fields={"model": str(minilm()), "threshold": t}),
            tmp_path / str(t),
        )
        for t in (0.6, 0.8)
    ]
    assert "fields.soft_f1" in runs[0].summary["metrics"]
    assert runs[0].summary["details"]["fields"]["threshold"] == 0.6
    found = compare(*runs)
    assert "fields is not compared" in found.notes[0] and not found.differences
