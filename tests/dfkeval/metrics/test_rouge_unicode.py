"""ROUGE-L of texts in another Unicode form: the plain number stays, the normalised one stands beside it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkeval import EvalConfig
from dfkeval.analysis import statistics
from dfkeval.metrics import Measured, Scoring, rouge
from dfkeval.types import Sample

TEXTS = {
    "accents": "naïve café à Zürich",
    "Indonesian": "Présidèn mengunjungi pasar",
    "Korean": "한국어 문장",
    "full width": "ＡＢＣ １２３",
    "ligature": "ﬁnal oﬃce",
}


def scored(pairs: list[tuple[str, str]], form: str | None) -> Measured:
    schema = schemas.load("answer")
    samples = [
        Sample(id=str(place), group=str(place), outcome="ok", gold={"answer": gold}, value={"answer": answer},
               lenient={"answer": answer}, text=answer)
        for place, (answer, gold) in enumerate(pairs)
    ]  # fmt: skip
    options = {} if form is None else {"rouge": rouge.Options(unicode=form)}  # type: ignore[arg-type]
    return rouge.METRIC.measure(samples, Scoring(schema, options))


def values(table: Measured) -> dict[str, float]:
    sums = table.values.sum(axis=0, keepdims=True)
    return {name: float(value[0]) for name, value in rouge.METRIC.reduce(sums, table.columns).items()}


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@pytest.mark.parametrize("written", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_another_form_is_the_same_text(text: str, written: str, form: str) -> None:
    pair = (unicodedata.normalize(written, text), text)
    both, plain = values(scored([pair], form)), values(scored([pair], None))
    assert {name: both[name] for name in plain} == plain
    if form == "NFKC" or not written.startswith("NFK"):
        assert both[f"{form.lower()}_f1"] == 1.0
    else:
        assert (
            both["nfc_f1"]
            == values(scored([tuple(unicodedata.normalize("NFC", side) for side in pair)], None))["f1"]
        )  # type: ignore[list-item]


def test_it_is_another_number_only_where_forms_differ() -> None:
    decomposed = unicodedata.normalize("NFD", TEXTS["accents"])
    found = values(scored([(decomposed, TEXTS["accents"])], "NFC"))
    assert found["f1"] < 0.7 and found["nfc_f1"] == 1.0
    same = values(scored([("the old dog", "the dog")], "NFKC"))
    assert (same["nfkc_precision"], same["nfkc_recall"]) == (same["precision"], same["recall"])


def test_runs_with_and_without_it_are_compared_on_the_plain_numbers() -> None:
    pairs = [(f"the dog {place}", f"a dog {place}") for place in range(8)]
    found = statistics.difference(
        rouge.METRIC, scored(pairs, None), scored(pairs, "NFC"), [str(i) for i in range(8)], resamples=50
    )
    assert set(found) == {"precision", "recall", "f1"} and found["f1"].value == 0.0


def test_the_option_is_read_from_the_configuration(tmp_path: Path) -> None:
    backend = {"kind": "scripted", "completions": "a.jsonl"}
    config = EvalConfig(
        data="rows.jsonl", backend=backend, metrics=["rouge"], metric_options={"rouge": {"unicode": "NFKC"}}
    )
    assert config.metric_options["rouge"] == rouge.Options(unicode="NFKC")
    with pytest.raises((ConfigError, ValueError), match="unicode"):
        EvalConfig(
            data="rows.jsonl",
            backend=backend,
            metrics=["rouge"],
            metric_options={"rouge": {"unicode": "NFD"}},
        )
