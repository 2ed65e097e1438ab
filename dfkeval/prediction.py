"""A model and its inputs -> validated answers, without gold: one at a time in Python, many from a raw file.

Strategy: prompts come from `dfkdata.rows.prompt`, so a prediction asks exactly what training taught; the
schema, its form and the pixel budget come from the adapter's `dfk.json` where they are not given, and a
mismatch is refused. Promises: every row gives exactly one line with one outcome; an answer that is not
valid has no value; a run that was stopped goes on, and failed requests are asked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from dfkdata import plugins, schemas
from dfkdata.config import Config
from dfkdata.errors import ConfigError, DataError, DfkError
from dfkdata.records import Record, Reject
from dfkdata.rows import prompt
from dfkdata.schemas import Schema, ToolForm
from dfkeval import backends, card
from dfkeval.judging import Item, judge
from dfkeval.samples import NOT_ANSWERED, Backend, Request, Sample, Sampling

#: Rows that are given to the backend together; a stopped run loses at most these.
CHUNK = 256


class PredictionError(DfkError):
    """The model's answer is not valid. sample: the judged answer, with its raw text and problems."""

    def __init__(self, sample: Sample) -> None:
        reason = "; ".join(sample.problems) or "no reason given"
        super().__init__(f"no valid answer ({sample.outcome}): {reason}")
        self.sample = sample


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a predictions file. outcome: of `dfkeval.samples.OUTCOMES`, or "rejected" for a raw row
    that cannot be asked. value: the strictly read answer; None without one."""

    id: str
    outcome: str
    value: dict[str, Any] | None = None
    repairs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    text: str = ""
    source: str = ""


class Predictor:
    """A loaded model that answers in one schema.

        ask = Predictor("Qwen/Qwen3.5-0.8B", adapter="train/adapter", schema="dfk_label")
        ask(image="post.png", title="…", text="…")      # {"label": …, "analisis": …}

    schema, variant: None takes the adapter's. sampling: None is greedy with the schema's stop string.
    backend: something loaded that answers instead of `model`. Raises `ConfigError` for what does not fit
    together."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        schema: str | Schema | None = None,
        variant: str | None = None,
        sampling: Sampling | None = None,
        backend: Backend | Config | None = None,
    ) -> None:
        found = card.read(Path(adapter)) if adapter is not None else None
        self.schema = _schema(schema, variant, found)
        self.sampling = sampling if sampling is not None else default_sampling(self.schema)
        self.backend = _engine(model, adapter, backend)

    def __call__(
        self, *, image: str | Path | None = None, images: Sequence[str | Path] = (), **fields: str
    ) -> dict[str, Any]:
        """The validated answer. fields: the prompt's inputs by name (dfk_label: title, text; caption:
        caption).

        Raises `PredictionError` when the answer is not valid, `ConfigError` for a field that the prompt has
        no use for."""
        paths = tuple(str(path) for path in (*([image] if image is not None else []), *images))
        known = prompt_fields(self.schema)
        unknown = sorted(fields.keys() - set(known))
        if unknown:
            near = plugins.suggestion(unknown[0], known)
            raise ConfigError(
                f"{self.schema.name} has no input {unknown[0]!r}{near} (inputs: {', '.join(known)})"
            )
        sample = next(self.samples([Record(id="1", group="1", source="", fields=fields, images=paths)]))
        if sample.value is None:
            raise PredictionError(sample)
        return sample.value

    def samples(self, records: Iterable[Record]) -> Iterator[Sample]:
        """Judged answers, in the order of the records; asked in chunks."""
        waiting = iter(records)
        while chunk := list(islice(waiting, CHUNK)):
            items = [_item(record, self.schema) for record in chunk]
            requests = [item.request for item in items]
            answers = {found.id: found for found in self.backend.generate(requests, self.sampling)}
            yield from judge(items, answers, self.schema)

    def predict(self, rows: Iterable[Record | Reject], out: str | Path) -> dict[str, int]:
        """Append one `Prediction` a row to the JSONL `out`; rows answered there before are not asked again.

        Returns outcome -> rows, of the whole file. Raises `DataError` when `out` holds something else."""
        path = Path(out)
        done = read_predictions(path)
        kept = {name: each for name, each in done.items() if each.outcome not in NOT_ANSWERED}
        path.parent.mkdir(parents=True, exist_ok=True)
        _rewrite(path, kept)
        encoder = msgspec.json.Encoder()
        with path.open("ab") as file:
            for found in self._predictions(row for row in rows if _name(row) not in kept):
                kept[found.id] = found
                file.write(encoder.encode(found) + b"\n")
                file.flush()
        return _counts(kept)

    def _predictions(self, rows: Iterable[Record | Reject]) -> Iterator[Prediction]:
        waiting = iter(rows)
        while chunk := list(islice(waiting, CHUNK)):
            for row in chunk:
                if isinstance(row, Reject):
                    reason = f"{row.code}: {row.reason}"
                    yield Prediction(id=_name(row), outcome="rejected", problems=(reason,), source=row.source)
            records = [row for row in chunk if isinstance(row, Record)]
            for record, sample in zip(records, self.samples(records), strict=True):
                yield Prediction(
                    id=record.id, outcome=sample.outcome, value=sample.value, repairs=sample.repairs,
                    problems=sample.problems, text=sample.text, source=record.source,
                )  # fmt: skip

    def close(self) -> None:
        """Free the model."""
        self.backend.close()


def _schema(schema: str | Schema | None, variant: str | None, found: card.Card | None) -> Schema:
    if schema is None and (found is None or found.schema is None):
        raise ConfigError("say which schema the model answers in, for example schema='dfk_label'")
    if variant is None and found is not None and schema in (None, found.schema):
        variant = found.form
    chosen = schemas.load(schema if schema is not None else str(found and found.schema), variant)
    if found is not None and found.schema not in (None, chosen.name):
        raise ConfigError(f"the adapter was trained on schema {found.schema!r}, not {chosen.name!r}")
    return chosen


def _engine(
    model: str | Path | None, adapter: str | Path | None, backend: Backend | Config | None
) -> Backend:
    if backend is None:
        if model is None:
            raise ConfigError("say which model answers: a folder, a hub name, or 'tiny'")
        module = plugins.load(backends.FAMILY, "transformers")
        backend = module.Config(model=str(model), adapter=adapter)
    if isinstance(backend, Config):
        module = plugins.load(backends.FAMILY, str(getattr(backend, "kind", "")))
        started: Backend = module.start(backend)
        return started
    return backend


def default_sampling(schema: Schema) -> Sampling:
    """Greedy, stopped at the end of a call where the schema answers by one."""
    return Sampling(stop=("</tool_call>",) if isinstance(schema.form, ToolForm) else ())


def prompt_fields(schema: Schema) -> list[str]:
    """Names of the inputs that the schema's prompt shows."""
    found: list[str] = []
    for part in schema.prompt.parts:
        lines = getattr(part, "lines", None)
        found += [key for _, key in lines] if lines is not None else []
        found += [part.field] if hasattr(part, "field") else []
    return found


def _item(record: Record, schema: Schema) -> Item:
    tools = record.tools if record.tools is not None else schema.tools
    request = Request(id=record.id, messages=prompt(record, schema), images=record.images, tools=tools)
    return Item(request, record.group, None, None, "", "")


def _name(row: Record | Reject) -> str:
    return row.id if isinstance(row, Record) else row.source


def read_predictions(path: Path) -> dict[str, Prediction]:
    """The predictions of a file by id; none where it does not exist. A half-written last line is not one."""
    if not path.exists():
        return {}
    found: dict[str, Prediction] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            prediction = msgspec.json.decode(line, type=Prediction)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}:{number}: not a prediction ({error}); give another --out") from error
        found[prediction.id] = prediction
    return found


def _rewrite(path: Path, kept: Mapping[str, Prediction]) -> None:
    """Leave only finished lines; whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in kept.values()))
    part.replace(path)


def _counts(found: Mapping[str, Prediction]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in found.values():
        counts[each.outcome] = counts.get(each.outcome, 0) + 1
    return dict(sorted(counts.items()))
