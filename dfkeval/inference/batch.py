"""Many rows -> a JSONL of predictions: resumable, in shards, one typed outcome a row.

Promises: every row of the input gives exactly one line, rows that cannot be asked and copies of a row
included; a line is written and flushed as its answer comes, so a killed run loses what was in flight; a run
that was stopped goes on only with the same model, schema and sampling, and asks failed requests again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from dfkdata.common import jsonl, locks
from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import Record, Reject
from dfkeval.evaluation.grading import grade
from dfkeval.inference import backend_options
from dfkeval.inference.predictor import CHUNK, Predictor, askable
from dfkeval.models.identity import AnswerIdentity
from dfkeval.types import NOT_ANSWERED, Sample

WHAT = "a prediction"


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One line. outcome: of `dfkeval.types.OUTCOMES`; "abstained" for a valid answer below the threshold;
    "rejected" for a raw row that cannot be asked. value: the strictly read answer; None without one, and for
    an abstained one. label: the class that was answered, abstained or not."""

    id: str
    outcome: str
    value: dict[str, Any] | None = None
    label: str | None = None
    confidence: float | None = None
    label_probs: dict[str, float] | None = None
    repairs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    text: str = ""
    source: str = ""
    n_prompt_tokens: int | None = None
    n_output_tokens: int | None = None


def of_sample(sample: Sample, ask: Predictor, source: str = "") -> Prediction:
    """A judged answer as a prediction."""
    reason = ask.abstains(sample)
    return Prediction(
        id=sample.id,
        outcome=sample.outcome if reason is None else "abstained",
        value=sample.value if reason is None else None,
        label=sample.label,
        confidence=sample.confidence,
        label_probs=sample.label_probs,
        repairs=sample.repairs,
        problems=sample.problems if reason is None else (*sample.problems, reason),
        text=sample.text,
        source=source,
        n_prompt_tokens=sample.n_prompt_tokens,
        n_output_tokens=sample.n_output_tokens,
    )


def many(
    ask: Predictor,
    rows: Iterable[Record | Reject],
    out: str | Path,
    *,
    part: tuple[int, int] = (1, 1),
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Append one `Prediction` a row to the JSONL `out`; rows answered there before are not asked again.

    part: (3, 16) is every sixteenth row from the third. progress: called with the number of finished rows.
    Returns outcome -> rows, of the whole file. Raises `DataError` when `out` holds something else,
    `ConfigError` when it was begun with another model, schema or sampling."""
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; --out is a JSONL file")
    with locks.alone(path.with_name(path.name + locks.LOCK), "prediction"):
        return _into(path, ask, rows, part, progress)


def _into(
    path: Path,
    ask: Predictor,
    rows: Iterable[Record | Reject],
    part: tuple[int, int],
    progress: Callable[[int], None] | None,
) -> dict[str, int]:
    done = outcomes(path)
    backend_options.begin(path, _record(ask, part), begun=bool(done))
    kept = {name: outcome for name, outcome in done.items() if outcome not in NOT_ANSWERED}
    jsonl.rewrite(path, Prediction, WHAT, lambda found: found.id in kept)
    mine = islice(numbered(askable(rows, ask.schema)), part[0] - 1, None, part[1])
    with jsonl.JsonlAppender(path) as file:
        for found in _predictions(ask, (row for row in mine if name_of(row) not in kept)):
            kept[found.id] = found.outcome
            file.put(found)
            if progress is not None:
                progress(len(kept))
    return dict(sorted(Counter(kept.values()).items()))


def _record(ask: Predictor, part: tuple[int, int]) -> dict[str, Any]:
    return {
        "schema": ask.schema.name,
        "variant": ask.schema.variant,
        "sampling": ask.sampling.model_dump(mode="json"),
        "scaffold": ask.scaffold._asdict() if ask.scaffold is not None else None,
        "confidences": ask.confidences,
        "threshold": ask.threshold,
        "shard": f"{part[0]}/{part[1]}",
        "backend": AnswerIdentity.of(ask.backend.info).for_resume(),
    }


def _predictions(ask: Predictor, rows: Iterable[Record | Reject]) -> Iterator[Prediction]:
    waiting = iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        for row in chunk:
            if isinstance(row, Reject):
                reason = f"{row.code}: {row.reason}"
                yield Prediction(id=name_of(row), outcome="rejected", problems=(reason,), source=row.source)
        records = {row.id: row for row in chunk if isinstance(row, Record)}
        items = {name: ask.item(record) for name, record in records.items()}
        for completion in ask.answers(items.values()):
            item = items.pop(completion.id)
            sample = grade([item], {completion.id: completion}, ask.schema)[0]
            yield of_sample(sample, ask, records[sample.id].source)
        for sample in grade(items.values(), {}, ask.schema):  # the engine left these out
            yield of_sample(sample, ask, records[sample.id].source)


def name_of(row: Record | Reject) -> str:
    """What a row is called in the file: its id, or for a reject its place."""
    return row.id if isinstance(row, Record) else row.source


def numbered(rows: Iterable[Record | Reject]) -> Iterator[Record | Reject]:
    """The rows, the second and later ones of one name as "name#2", …, or the next number that is free: each
    row has a line of its own."""
    seen: Counter[str] = Counter()
    for row in rows:
        first = name = name_of(row)
        while name in seen:
            seen[first] += 1
            name = f"{first}#{seen[first]}"
        seen[name] = 1
        if name == first:
            yield row
        else:
            yield replace(row, id=name) if isinstance(row, Record) else replace(row, source=name)


def outcomes(path: Path) -> dict[str, str]:
    """id -> outcome of the finished lines. Raises `DataError` for a line that is no prediction."""
    return {found.id: found.outcome for _, found in jsonl.read_finished(path, Prediction, WHAT)}
