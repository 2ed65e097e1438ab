"""Predict many rows into a JSONL file that a stopped run goes on with.

Guarantees:
- Every row of the input gives exactly one line, also a row that cannot be asked and a copy of another row.
- A line is written and flushed as its answer comes, so a killed run loses only what was in flight.
- A file goes on only with the same model, schema and sampling; failed requests are asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common import jsonl, locks
from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import Record, Reject
from dfkeval.evaluation.grading import grade
from dfkeval.inference.inputs import CHUNK, askable, name_of, numbered
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.resume import begin
from dfkeval.models.identity import AnswerIdentity
from dfkeval.types import NOT_ANSWERED, Sample

_LINE = "a prediction"


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a file of predictions.

    Args:
        id: Id of the row; the place of a row that cannot be read.
        outcome: One of `dfkeval.types.OUTCOMES`, "abstained" for a valid answer below the threshold, or
            "rejected" for a row that cannot be asked.
        value: The strictly read answer; None if it is not valid, and for an abstained one.
        label: The class that was answered, abstained or not.
        confidence: Probability of that label, in [0, 1].
        label_probs: Label -> its probability over the closed set.
        repairs: Aliases that the strict reading resolved, or what the lenient reading repaired.
        problems: What is wrong, one readable line each.
        text: The raw answer.
        source: Where the row comes from.
        n_prompt_tokens: Tokens of the prompt.
        n_output_tokens: Tokens of the answer.
    """

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


def prediction_of(sample: Sample, predictor: Predictor, source: str = "") -> Prediction:
    """Return a graded answer as a prediction.

    Args:
        sample: The graded answer.
        predictor: Whose threshold decides about abstaining.
        source: Where the row comes from.
    """
    reason = predictor.abstains(sample)
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


def predict_many(
    predictor: Predictor,
    rows: Iterable[Record | Reject],
    out: str | Path,
    *,
    part: tuple[int, int] = (1, 1),
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Append one prediction a row to a JSONL file; rows that it answers already are not asked again.

    Args:
        predictor: What answers.
        rows: What to ask, for example from `dfkdata.read`.
        out: The JSONL file; each line is a `Prediction`.
        part: (place, count) of a shard: (3, 16) is every sixteenth row from the third.
        progress: Called with the number of finished rows.

    Returns:
        Outcome -> number of rows, of the whole file.

    Raises:
        DataError: `out` holds something else.
        ConfigError: `out` was begun with another model, schema or sampling.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from dfkdata import Record
        >>> from dfkeval import Predictor, predict_many
        >>> from dfkeval.backends import Completion
        >>> from dfkeval.backends.scripted import Scripted
        >>> backend = Scripted({"q1": Completion(id="q1", text="Jakarta")})
        >>> row = Record(id="q1", group="q1", source="", fields={"question": "Ibu kota?"})
        >>> out = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> predict_many(Predictor(schema="answer", backend=backend), [row], out)
        {'ok': 1}
    """
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; --out is a JSONL file")
    with locks.alone(path.with_name(path.name + locks.LOCK), "prediction"):
        return _predict_into(path, predictor, rows, part, progress)


def _predict_into(
    path: Path,
    predictor: Predictor,
    rows: Iterable[Record | Reject],
    part: tuple[int, int],
    progress: Callable[[int], None] | None,
) -> dict[str, int]:
    done = _outcomes(path)
    begin(path, _record(predictor, part), begun=bool(done))
    finished = {name: outcome for name, outcome in done.items() if outcome not in NOT_ANSWERED}
    jsonl.rewrite(path, Prediction, _LINE, lambda prediction: prediction.id in finished)
    shard = islice(numbered(askable(rows, predictor.schema)), part[0] - 1, None, part[1])
    with jsonl.JsonlAppender(path) as file:
        for prediction in _predictions(predictor, (row for row in shard if name_of(row) not in finished)):
            finished[prediction.id] = prediction.outcome
            file.put(prediction)
            if progress is not None:
                progress(len(finished))
    return dict(sorted(Counter(finished.values()).items()))


def _record(predictor: Predictor, part: tuple[int, int]) -> dict[str, Any]:
    return {
        "schema": predictor.schema.name,
        "variant": predictor.schema.variant,
        "sampling": predictor.sampling.model_dump(mode="json"),
        "scaffold": predictor.scaffold._asdict() if predictor.scaffold is not None else None,
        "confidences": predictor.confidences,
        "threshold": predictor.threshold,
        "shard": f"{part[0]}/{part[1]}",
        "backend": AnswerIdentity.of(predictor.backend.info).for_resume(),
    }


def _predictions(predictor: Predictor, rows: Iterable[Record | Reject]) -> Iterator[Prediction]:
    waiting = iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        for row in chunk:
            if isinstance(row, Reject):
                reason = f"{row.code}: {row.reason}"
                yield Prediction(id=name_of(row), outcome="rejected", problems=(reason,), source=row.source)
        records = {row.id: row for row in chunk if isinstance(row, Record)}
        items = {name: predictor.item(record) for name, record in records.items()}
        for completion in predictor.answers(items.values()):
            item = items.pop(completion.id)
            sample = grade([item], {completion.id: completion}, predictor.schema)[0]
            yield prediction_of(sample, predictor, records[sample.id].source)
        for sample in grade(items.values(), {}, predictor.schema):  # the backend left these out
            yield prediction_of(sample, predictor, records[sample.id].source)


def _outcomes(path: Path) -> dict[str, str]:
    """Return id -> outcome of the finished lines."""
    return {line.id: line.outcome for _, line in jsonl.read_finished(path, Prediction, _LINE)}
