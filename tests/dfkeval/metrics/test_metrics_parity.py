"""Numbers equal those of the packages whose definitions we follow."""

from __future__ import annotations

import random
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfkeval.metrics import (
    Scoring,
    _bertscore,
    _rouge_l,
    answers,
    bertscore,
    keywords,
    labels,
    rouge,
    sita,
)
from dfkeval.metrics._contract import slug
from dfkeval.types import Sample
from tests.helpers.runs import DFK, LABELS, minilm, sample_of

WORDS = [
    "kabar",
    "ini",
    "tidak",
    "benar",
    "the",
    "dog",
    "runs",
    "naïve",
    "café",
    "ñandú",
    "42",
    "a-b",
    "x_y",
    "Ok.",
]


def texts(count: int, seed: int, longest: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(count)]


def test_classification_equals_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = random.Random(3)
    said = [rng.choice([*LABELS, *LABELS, "?"]) for _ in range(200)]
    samples = [labelled(index, label) for index, label in enumerate(said)]
    gold = [str((sample.gold or {})["label"]) for sample in samples]
    got = labels_of(samples)
    scores = {"labels": sorted(set(gold)), "zero_division": 0}
    assert got["accuracy"] == pytest.approx(sklearn.accuracy_score(gold, said))
    for average in ("macro", "weighted"):
        want = sklearn.f1_score(gold, said, average=average, **scores)
        assert got[f"{average}_f1"] == pytest.approx(want)
    assert got["macro_precision"] == pytest.approx(
        sklearn.precision_score(gold, said, average="macro", **scores)
    )
    assert got["macro_recall"] == pytest.approx(sklearn.recall_score(gold, said, average="macro", **scores))
    for label, value in zip(
        scores["labels"], sklearn.f1_score(gold, said, average=None, **scores), strict=True
    ):
        assert got[f"f1.{slug(label)}"] == pytest.approx(value)


def labelled(index: int, label: str) -> Sample:
    text = "?" if label == "?" else f"Label: {label}\n\nAnalisis: sebab"
    return sample_of(index, DFK, text)


def labels_of(samples: list[Sample]) -> dict[str, float]:
    measured = labels.METRIC.measure(samples, Scoring(DFK))
    return {
        name: float(value[0])
        for name, value in labels.METRIC.reduce(
            measured.values.sum(axis=0, keepdims=True), measured.columns
        ).items()
    }


def test_a_label_that_nobody_predicts_does_not_leave_the_macro_mean() -> None:
    got = labels_of([labelled(index, "netral") for index in range(4)])
    assert got["macro_f1"] == pytest.approx((2 * 1 / (2 * 1 + 3)) / 4)
    assert got["macro_precision"] == pytest.approx((1 / 4) / 4)


def test_a_label_that_is_not_in_the_gold_is_no_class_of_the_macro_mean() -> None:
    got = labels_of([labelled(0, "netral"), labelled(4, "fitnah")])
    assert got["macro_f1"] == pytest.approx(2 / 3)


def test_an_alias_counts_as_its_class_and_is_counted() -> None:
    sample = sample_of(0, DFK, "Label: non-dfk\n\nAnalisis: sebab")
    measured = labels.METRIC.measure([sample], Scoring(DFK))
    assert sample.outcome == "ok"
    assert measured.details["alias_hits"] == 1
    assert labels_of([sample])["accuracy"] == 1.0


def rouge_score_rows(candidates: list[str], references: list[str]) -> list[tuple[float, float, float]]:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    found = [scorer.score(gold, said)["rougeL"] for said, gold in zip(candidates, references, strict=True)]
    return [(score.precision, score.recall, score.fmeasure) for score in found]


def test_rouge_l_is_bit_equal_to_rouge_score_on_latin_text() -> None:
    said, gold = texts(300, 1, 80), texts(300, 2, 80)
    got = rouge.rouge_l(said, gold)
    want = np.array(rouge_score_rows(said, gold))
    assert np.array_equal(np.stack([got.precision, got.recall, got.f1], axis=1), want)


@given(st.text(string.printable, max_size=60), st.text(string.printable, max_size=60))
@settings(max_examples=200, deadline=None)
def test_rouge_l_is_bit_equal_on_any_ascii_text(said: str, gold: str) -> None:
    assert _rouge_l.score_pair(said, gold) == rouge_score_rows([said], [gold])[0]


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_rouge_l_of_a_text_with_itself_is_1_if_it_has_a_letter(text: str) -> None:
    want = (
        1.0
        if any(sign.isalpha() or sign.isdecimal() for sign in text)
        else _rouge_l.score_pair(text, text)[2]
    )
    assert _rouge_l.score_pair(text, text)[2] == want


@pytest.mark.parametrize(
    ("said", "gold"), [("狗在跑", "狗在睡"), ("собака бежит", "собака спит"), ("कुत्ता दौड़ता", "कुत्ता सोता")]
)
def test_rouge_l_sees_other_scripts(said: str, gold: str) -> None:
    assert 0.0 < _rouge_l.score_pair(said, gold)[2] < 1.0


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return {"model": str(minilm()), "layer": 6}


def bert_score_rows(said: list[str], gold: list[Any], **more: Any) -> np.ndarray:
    bert_score = pytest.importorskip("bert_score")
    found = bert_score.score(
        said, gold, model_type=str(minilm()), num_layers=6, batch_size=1, device="cpu", **more
    )
    return np.stack([part.numpy() for part in found], axis=1)


def rows(scores: Any) -> np.ndarray:
    return np.stack([scores.precision, scores.recall, scores.f1], axis=1)


def test_bertscore_equals_bert_score_at_batch_size_1(options: dict[str, Any]) -> None:
    said, gold = [*texts(40, 5), "😀", "!!", "same text"], [*texts(40, 6), "🔥", "??", "same text"]
    assert np.abs(rows(bertscore.score(said, gold, **options)) - bert_score_rows(said, gold)).max() <= 1e-6


def test_bertscore_equals_bert_score_with_several_references_and_idf(options: dict[str, Any]) -> None:
    said, gold = texts(12, 7), [texts(3, 100 + index) for index in range(12)]
    assert np.abs(rows(bertscore.score(said, gold, **options)) - bert_score_rows(said, gold)).max() <= 1e-6
    flat = texts(12, 8)
    want = bert_score_rows(said, flat, idf=True, nthreads=0)
    assert np.abs(rows(bertscore.score(said, flat, idf=True, **options)) - want).max() <= 1e-6


def test_bertscore_does_not_depend_on_batch_order_or_neighbours(options: dict[str, Any]) -> None:
    said, gold = texts(24, 9, 60), texts(24, 10, 60)
    whole = rows(bertscore.score(said, gold, **options))
    backwards = rows(bertscore.score(said[::-1], gold[::-1], batch_tokens=300, **options))[::-1]
    alone = np.concatenate(
        [rows(bertscore.score([a], [b], **options)) for a, b in zip(said, gold, strict=True)]
    )
    assert np.abs(whole - backwards).max() <= 1e-6
    assert np.abs(whole - alone).max() <= 1e-6


@pytest.mark.parametrize("text", ["", "   ", None, "\x00", "\n\t", "word " * 5000, "😀", "\ud83d"])
def test_bertscore_never_fails_on_a_text(options: dict[str, Any], text: str | None) -> None:
    for said, gold in ((text, "a dog"), ("a dog", text), (text, text)):
        scores = bertscore.score([said], [gold], **options)
        assert np.isfinite(rows(scores)).all()
        assert (rows(scores) <= 1.0).all()


def test_bertscore_of_a_text_without_words_is_0_and_long_texts_are_flagged(options: dict[str, Any]) -> None:
    scores = bertscore.score(["", "a dog", "word " * 600], ["a dog", "", "a dog"], **options)
    assert scores.f1[:2].tolist() == [0.0, 0.0]
    assert scores.truncated.tolist() == [False, False, True]


def test_bertscore_of_a_text_with_itself_is_1_and_never_more(options: dict[str, Any]) -> None:
    same = texts(40, 11)
    scores = bertscore.score(same, same, **options)
    assert (rows(scores) <= 1.0).all()
    assert rows(scores) == pytest.approx(1.0, abs=1e-6)


def test_an_unknown_bertscore_model_needs_a_layer() -> None:
    from dfkdata.common.errors import ConfigError

    with pytest.raises(ConfigError, match="say which layer"):
        _bertscore.choose("someone/new-encoder", None, None)
    assert _bertscore.choose(None, None, None) == ("bert-base-multilingual-cased", 9)
    assert _bertscore.choose("/models/bert-base-multilingual-cased", None, None)[1] == 9
    assert _bertscore.choose(None, None, "id") == ("bert-base-multilingual-cased", 9)
    assert _bertscore.choose(None, None, "en") == ("roberta-large", 17)


def test_sita_numbers_are_those_of_its_definition() -> None:
    """Macro over the union of gold and predicted labels, unparsed answers being a class of their own."""
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = random.Random(5)
    said = [rng.choice([*LABELS, *LABELS, "?", "bohong", "**Fitnah**", "non-dfk"]) for _ in range(120)]
    samples = [labelled(index, label) for index, label in enumerate(said)]
    gold = [str((sample.gold or {})["label"]) for sample in samples]
    read = {"?": "<UNPARSED>", "**Fitnah**": "**fitnah**", "non-dfk": "netral"}
    seen = [read.get(label, label) for label in said]
    measured = sita.METRIC.measure(samples, Scoring(DFK))
    got = sita.METRIC.reduce(measured.values.sum(axis=0, keepdims=True), measured.columns)
    scores = {"labels": sorted({*gold, *seen}), "zero_division": 0}
    for average in ("macro", "weighted"):
        want = sklearn.precision_recall_fscore_support(gold, seen, average=average, **scores)
        for name, value in zip(("precision", "recall", "f1"), want, strict=False):
            assert got[f"cls_{name}_{average}"][0] == pytest.approx(value)
    assert got["cls_accuracy"][0] == pytest.approx(sklearn.accuracy_score(gold, seen))
    matrix = sklearn.confusion_matrix(gold, seen, labels=scores["labels"])
    assert measured.details["confusion_matrix"] == {"labels": scores["labels"], "matrix": matrix.tolist()}
    texts_read = [
        sample.text if label == "?" else "sebab" for sample, label in zip(samples, said, strict=True)
    ]
    want_rouge = np.mean(
        rouge_score_rows(texts_read, [str((s.gold or {})["analisis"]) for s in samples]), axis=0
    )
    assert [got[f"rouge_l_{name}"][0] for name in ("precision", "recall", "f1")] == pytest.approx(
        list(want_rouge)
    )


@pytest.mark.parametrize(
    ("said", "gold", "exact", "f1"),
    [
        ("The cat.", "cat", 1.0, 1.0),
        ("a red cat", "red dog", 0.0, 0.5),
        ("", "cat", 0.0, 0.0),
        ("!", "!", 1.0, 1.0),
    ],
)
def test_short_answers_are_compared_without_articles_and_signs(
    said: str, gold: str, exact: float, f1: float
) -> None:
    assert answers.score_pair(said, gold) == (exact, pytest.approx(f1))


def test_keywords_of_signs_alone_never_hit() -> None:
    assert keywords.score_lists(["!!"], ["?"]) == (0, 0, 0, 0, 0, 0, 0, 1.0)
    got = dict(
        zip(keywords.NAMES, keywords.score_lists(["Berita palsu", "vaksin"], ["vaksin!"]), strict=True)
    )
    assert (got["phrase_precision"], got["phrase_recall"], got["exact_hit"]) == (0.5, 1.0, 1.0)
    assert got["token_precision"] == pytest.approx(1 / 3)
