"""How fast scoring is, each figure beside the library it replaces, in one process on one thread.

    OMP_NUM_THREADS=1 python bench/score.py [--bertscore FOLDER LAYER] [--pairs 2000] [--only PART…]

Prints a table and writes JSON. Ratios are what counts; seconds depend on the machine and its load."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import numpy as np

from dfkdata import schemas
from dfkeval.analysis import bootstrap, statistics
from dfkeval.metrics import (
    Scoring,
    _bertscore,
    _rouge_l,
    answers,
    bertscore,
    calibration,
    coverage,
    fields,
    grounding,
    keywords,
    labels,
    loss,
    qwen_test_runner,
    rouge,
    sita,
    sita_captioning,
    sita_keywords,
    validity,
)
from dfkeval.types import Sample

LABELS = ("netral", "disinformasi", "fitnah", "ujaran kebencian")
WORDS = "the a dog horse runs on grass red small wooden bench child under tree near water bright sign".split()


def clock(work: Callable[[], Any], repeat: int = 3) -> float:
    """Best CPU seconds of `repeat` runs."""
    found = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def texts(rng: random.Random, count: int, low: int, high: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(low, high))) for _ in range(count)]


def measure_rouge(pairs: int) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    rng = random.Random(1)
    said, gold = texts(rng, pairs, 20, 200), texts(rng, pairs, 20, 200)
    scorer = RougeScorer(["rougeL"])
    theirs = (
        clock(lambda: [scorer.score(b, a) for a, b in zip(said[:200], gold[:200], strict=True)], 1)
        * pairs
        / 200
    )

    def fresh() -> None:
        _rouge_l.short_pair.cache_clear()
        rouge.rouge_l(said, gold)

    ours = clock(fresh)
    return {"pairs": pairs, "seconds": ours, "rouge_score_seconds": theirs, "ratio": theirs / ours}


def caption(rng: random.Random) -> dict[str, Any]:
    subject = {"name": rng.choice(WORDS), "attributes": rng.choices(WORDS, k=3)}
    return {"subjects": [subject] * 2, "actions": rng.choices(WORDS, k=2), "setting": "outdoor"}


def measure_schema(count: int = 50_000) -> dict[str, float]:
    schema = schemas.load("caption")
    rng = random.Random(2)
    documents = [caption(rng) for _ in range(count)]
    fast = jsonschema_rs.validator_for(schema.json_schema)
    slow = jsonschema.Draft202012Validator(schema.json_schema)
    ours = clock(lambda: [fast.is_valid(each) for each in documents])
    second = schema.answer.__pydantic_validator__.isinstance_python
    pydantic = clock(lambda: [second(each) for each in documents])
    theirs = clock(lambda: [slow.is_valid(each) for each in documents[:1000]], 1) * count / 1000
    return {
        "documents_per_second": count / ours,
        "pydantic_per_second": count / pydantic,
        "jsonschema_per_second": count / theirs,
        "ratio": theirs / ours,
    }


def dfk_sample(index: int, rng: random.Random) -> Sample:
    gold = {"label": LABELS[index % 4], "analisis": texts(rng, 1, 20, 40)[0]}
    value = {"label": rng.choice(LABELS), "analisis": texts(rng, 1, 20, 40)[0]}
    name = str(index)
    sure = rng.uniform(0.25, 1.0)
    probs = {label: sure if label == value["label"] else (1 - sure) / 3 for label in LABELS}
    return Sample(
        id=name, group=name, outcome="ok", gold=gold, value=value, lenient=value,
        text=f"Label: {value['label']}\n\nAnalisis: {value['analisis']}",
        label=value["label"], label_probs=probs, gold_nll=rng.uniform(1, 40), gold_tokens=rng.randint(20, 60),
    )  # fmt: skip


def caption_sample(index: int, rng: random.Random) -> Sample:
    gold, value, name = caption(rng), caption(rng), str(index)
    source = texts(rng, 1, 10, 20)[0]
    return Sample(
        id=name, group=name, outcome="ok", gold=gold, value=value, lenient=value, text=json.dumps(value),
        source_text=source,
    )  # fmt: skip


def report(samples: list[Sample], schema: str, chosen: tuple[Any, ...]) -> None:
    """Everything that scoring does after decoding: measure, reduce, resample."""
    scoring = Scoring(schemas.load(schema))
    measured = {
        module.__name__: (module.METRIC, module.METRIC.measure(samples, scoring)) for module in chosen
    }
    statistics.estimates(measured, [sample.group for sample in samples], seed=1)


def measure_report() -> dict[str, float]:
    rng = random.Random(3)
    small, large = ([dfk_sample(index, rng) for index in range(count)] for count in (1000, 10_000))
    captions = [caption_sample(index, rng) for index in range(10_000)]
    scoring = Scoring(schemas.load("dfk_label"))
    table = labels.METRIC.measure(small, scoring)
    groups = [sample.group for sample in small]
    text = (validity, labels, fields, rouge, calibration, loss)
    image = (validity, fields, grounding, coverage, rouge)
    every_text = (*text, answers, sita, sita_captioning)
    every_image = (*image, keywords, qwen_test_runner, sita_keywords)

    def cold(samples: list[Sample], schema: str, chosen: tuple[Any, ...]) -> float:
        bootstrap.weights.cache_clear()
        _rouge_l.short_pair.cache_clear()
        return clock(lambda: report(samples, schema, chosen), 1)

    return {
        "labels_10000_resamples_n1000": clock(
            lambda: statistics.estimate(labels.METRIC, table, groups, seed=1)
        ),
        "report_dfk_n1000": cold(small, "dfk_label", text),
        "score_dfk_n10000": cold(large, "dfk_label", text),
        "score_caption_n10000": cold(captions, "caption", image),
        "score_dfk_every_n10000": cold(large, "dfk_label", every_text),
        "score_caption_every_n10000": cold(captions, "caption", every_image),
    }


def measure_bertscore(folder: str, layer: int, pairs: int, rounds: int) -> dict[str, float]:
    import bert_score
    import torch

    torch.set_num_threads(1)
    rng = random.Random(4)
    gold = (texts(rng, max(1, pairs // 10), 20, 200) * 10)[:pairs]
    said = texts(rng, pairs, 20, 200)

    def ours(dtype: Any = "float32", cache: Path | None = None) -> Any:
        _bertscore.encoder.cache_clear()
        return bertscore.score(said, gold, model=folder, layer=layer, dtype=dtype, cache=cache)

    theirs_found: list[Any] = []
    reference: dict[str, Any] = {"model_type": folder, "num_layers": layer, "device": "cpu"}
    theirs = clock(lambda: theirs_found.append(bert_score.score(said, gold, **reference)), 1)
    fp32, bf16 = ours(), ours("bfloat16")
    found = {
        "pairs": pairs,
        "bert_score_seconds": theirs,
        "tokens_cached": cached_share(said, gold, folder, layer),
    }
    found["max_difference"] = float(np.abs(fp32.f1 - theirs_found[0][2].numpy()).max())
    found["bf16_max_difference"] = float(np.abs(fp32.f1 - bf16.f1).max())
    seconds: dict[str, list[float]] = {"fp32": [], "half_cached": [], "bf16": []}
    with tempfile.TemporaryDirectory() as name:
        half, some = Path(name) / "half", (pairs - len(set(gold))) // 2
        bertscore.score(gold + said[:some], gold + gold[:some], model=folder, layer=layer, cache=half)
        for number in range(rounds):  # side by side: what the machine does meanwhile meets all alike
            fresh = Path(name) / f"round{number}"
            shutil.copytree(half, fresh)
            seconds["fp32"].append(clock(ours, 1))
            seconds["half_cached"].append(clock(lambda fresh=fresh: ours(cache=fresh), 1))
            seconds["bf16"].append(clock(lambda: ours("bfloat16"), 1))
        found["all_cached_seconds"] = clock(lambda: ours(cache=fresh))
    found |= {f"{kind}_seconds": min(each) for kind, each in seconds.items()}
    for kind in ("fp32", "bf16"):
        found[f"{kind}_ratio"] = theirs / found[f"{kind}_seconds"]
    for kind in ("half", "all"):
        found[f"{kind}_cached_gain"] = found["fp32_seconds"] / found[f"{kind}_cached_seconds"]
    return found


def cached_share(said: list[str], gold: list[str], folder: str, layer: int) -> float:
    """Share of all distinct texts' tokens that the half-filled cache holds: 0.5 makes 2.0 the limit of the
    gain."""
    encoder = _bertscore.encoder(folder, layer, "float32")
    some = (len(said) - len(set(gold))) // 2
    counts = [
        sum(len(ids) for ids, _ in encoder.tokens(list(dict.fromkeys(texts))))
        for texts in ([*gold, *said[:some]], [*gold, *said])
    ]
    return counts[0] / counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bertscore", nargs=2, metavar=("FOLDER", "LAYER"))
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2, help="of the BERTScore kinds, one after another")
    parser.add_argument("--only", nargs="*", choices=("rouge", "schema", "report", "bertscore"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "rouge": lambda: measure_rouge(asked.pairs), "schema": measure_schema, "report": measure_report
    }  # fmt: skip
    if asked.bertscore:
        folder, layer = asked.bertscore
        parts["bertscore"] = lambda: measure_bertscore(folder, int(layer), asked.pairs, asked.rounds)
    found = {name: part() for name, part in parts.items() if not asked.only or name in asked.only}
    for part, rows in found.items():
        for name, value in rows.items():
            print(f"{part:10} {name:32} {value:14,.4g}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
