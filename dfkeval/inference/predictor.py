"""A model and its inputs -> validated answers, without gold.

Strategy: prompts come from `dfkdata.rows.messages.prompt`, so a prediction asks exactly what training taught; schema,
form, system text, tools and thinking come from the `dfk.json` of the adapter or merged model where they are
not given, and a mismatch is refused. Promises: an answer that is not valid has no value, and neither has one
that is less sure than the threshold. Many rows into a file: `dfkeval.inference.batch`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.rows.prompt import prompt
from dfkdata.rows.record import Record, Reject
from dfkdata.rows.scaffold import Scaffold
from dfkdata.schemas import Schema, ToolForm
from dfkeval import backends
from dfkeval.backends import Backend
from dfkeval.backends.transformers import Config as LocalModel
from dfkeval.evaluation import scaffold as scaffolds
from dfkeval.evaluation.grading import EvalItem, grade, prompt_text
from dfkeval.inference.backend_options import sampling_of
from dfkeval.models import metadata
from dfkeval.parsing.label_confidence import demand_slot, with_slot
from dfkeval.parsing.tags import TOOL_CALL_CLOSE
from dfkeval.types import Completion, Request, Sample, Sampling

#: Rows that are given to the backend together.
CHUNK = 256

Threshold = float | Mapping[str, float]
"""The least probability of an answer's label, for all labels or by label; a label without one is taken."""


class PredictionError(DfkError):
    """The model's answer is not valid, or not sure enough. sample: the judged answer, with its raw text and
    problems. outcome: the sample's, or "abstained"."""

    def __init__(self, sample: Sample, outcome: str | None = None, reason: str | None = None) -> None:
        self.sample, self.outcome = sample, outcome or sample.outcome
        why = reason or "; ".join(sample.problems) or "no reason given"
        super().__init__(f"no valid answer ({self.outcome}): {why}")


class Predictor:
    """A loaded model that answers in one schema.

        ask = Predictor("Qwen/Qwen3.5-0.8B", adapter="train/adapter", schema="dfk_label")
        ask(image="post.png", title="…", text="…")      # {"label": …, "analisis": …}

    schema, variant: None takes the adapter's. sampling: None is greedy with the schema's stop string;
    settings: changes to it such as "max_new_tokens=64".
    backend: something loaded, or the configuration of one, that answers instead of `model`. scaffold: a
    task_1 file with the system text and tools of a foreign adapter. confidences: also ask how sure the model
    is of each label. threshold: abstain below it (implies confidences). Raises `ConfigError` for what does
    not fit together."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        schema: str | Schema | None = None,
        variant: str | None = None,
        sampling: Sampling | None = None,
        settings: Sequence[str] = (),
        backend: Backend | Config | None = None,
        scaffold: str | Path | None = None,
        confidences: bool = False,
        threshold: Threshold | None = None,
    ) -> None:
        folder, note = _note(model, adapter, backend)
        where = f"{folder}/{metadata.NAME}"
        self.schema = _schema(schema, variant, note)
        default = default_sampling(self.schema, thinking=note is not None and note.thinking)
        self.sampling = sampling_of(sampling if sampling is not None else default, settings)
        self.scaffold = _scaffold(scaffold, note, where, self.schema)
        if note is not None:
            asked = {"form": self.schema.variant, "thinking": self.sampling.thinking}
            metadata.refuse_mismatch(note, where, asked)
        self.threshold = threshold
        self.confidences = confidences or threshold is not None
        if self.confidences:
            _check_threshold(threshold, list(demand_slot(self.schema).written))
        self.backend = _engine(model, adapter, backend)

    def __call__(
        self, *, image: str | Path | None = None, images: Sequence[str | Path] = (), **fields: str
    ) -> dict[str, Any]:
        """The validated answer. fields: the prompt's inputs by name (dfk_label: title, text; caption:
        caption).

        Raises `PredictionError` when the answer is not valid or not sure enough, `ConfigError` for a field
        that the prompt has no use for."""
        found = self.sample(images=[*([image] if image is not None else []), *images], fields=fields)
        reason = self.abstains(found)
        if reason is not None:
            raise PredictionError(found, "abstained", reason)
        if found.value is None:
            raise PredictionError(found)
        return found.value

    def sample(self, *, images: Sequence[str | Path] = (), fields: Mapping[str, str]) -> Sample:
        """The judged answer, with its raw text, problems and confidence. Raises `ConfigError` for a field
        that the prompt has no use for."""
        self.check_fields(fields)
        if not images and not any(text.strip() for text in fields.values()):
            names = ", ".join(prompt_fields(self.schema))
            raise ConfigError(f"nothing to ask: give an image or one of {names or 'no texts'}")
        paths = tuple(str(path) for path in images)
        return next(self.samples([Record(id="1", group="1", source="", fields=dict(fields), images=paths)]))

    def check_fields(self, fields: Iterable[str]) -> None:
        """Raises `ConfigError` for a name that the prompt has no use for."""
        known = prompt_fields(self.schema)
        unknown = sorted(set(fields) - set(known))
        if unknown:
            near = plugins.suggestion(unknown[0], known)
            raise ConfigError(
                f"{self.schema.name} has no input {unknown[0]!r}{near} (inputs: {', '.join(known) or 'none'})"
            )

    def samples(self, records: Iterable[Record]) -> Iterator[Sample]:
        """Judged answers, in the order of the records; asked in chunks."""
        waiting = iter(records)
        while chunk := list(islice(waiting, CHUNK)):
            items = [self.item(record) for record in chunk]
            answers = {found.id: found for found in self.answers(items)}
            yield from grade(items, answers, self.schema)

    def answers(self, items: Iterable[EvalItem]) -> Iterator[Completion]:
        """The backend's completions, in any order, as they come."""
        return self.backend.generate([item.request for item in items], self.sampling)

    def item(self, record: Record) -> EvalItem:
        """What is asked for one record."""
        messages = scaffolds.applied(prompt(record, self.schema), self.scaffold)
        tools = record.tools if record.tools is not None else self.schema.tools
        if self.scaffold is not None and self.scaffold.tools:
            tools = self.scaffold.tools
        request = Request(id=record.id, messages=messages, images=record.images, tools=tools)
        if self.confidences:
            request = with_slot(request, self.schema)
        source = record.meta.get("text")
        told = source if isinstance(source, str) else None
        return EvalItem(request, record.group, None, told, prompt_text(messages), "")

    def predict(
        self, rows: Iterable[Record | Reject], out: str | Path, *, part: tuple[int, int] = (1, 1)
    ) -> dict[str, int]:
        """`dfkeval.inference.batch.many` with this model: one line a row in the JSONL `out`."""
        from dfkeval.inference.batch import many

        return many(self, rows, out, part=part)

    def abstains(self, sample: Sample) -> str | None:
        """Why a valid answer is not sure enough; None where it is, or where no threshold is set."""
        if self.threshold is None or sample.value is None or sample.label is None:
            return None
        least = (
            self.threshold if not isinstance(self.threshold, Mapping) else self.threshold.get(sample.label)
        )
        if least is None:
            return None
        if sample.confidence is None:
            return f"the confidence in {sample.label!r} is not known, and {least:g} is wanted"
        if sample.confidence >= least:
            return None
        return f"the confidence in {sample.label!r} is {sample.confidence:.3f}, below {least:g}"

    def close(self) -> None:
        """Free the model."""
        self.backend.close()


def _note(
    model: str | Path | None, adapter: str | Path | None, backend: Backend | Config | None
) -> tuple[Path | None, metadata.Card | None]:
    """The folder of the model's `dfk.json`, and what it says."""
    if isinstance(backend, Config):
        model, adapter = getattr(backend, "model", model), getattr(backend, "adapter", adapter)
    folder = metadata.folder_of(model, adapter)
    return folder, metadata.read(folder) if folder is not None else None


def _schema(schema: str | Schema | None, variant: str | None, found: metadata.Card | None) -> Schema:
    if schema is None and (found is None or found.schema is None):
        raise ConfigError("say which schema the model answers in, for example schema='dfk_label'")
    if variant is None and found is not None and schema in (None, found.schema):
        variant = found.form
    chosen = schemas.load(schema if schema is not None else str(found and found.schema), variant)
    if found is not None and found.schema not in (None, chosen.name):
        raise ConfigError(f"the adapter was trained on schema {found.schema!r}, not {chosen.name!r}")
    return chosen


def _scaffold(
    path: str | Path | None, note: metadata.Card | None, where: str, schema: Schema
) -> Scaffold | None:
    if path is None:
        return scaffolds.of_card(note, where, schema)
    found = scaffolds.read(path, schema)
    if note is not None:
        metadata.refuse_mismatch(note, where, {"system_prompt": found.system, "tools": found.tools})
    return found


def _check_threshold(threshold: Threshold | None, labels: Sequence[str]) -> None:
    by_label = threshold if isinstance(threshold, Mapping) else {}
    numbers = by_label.values() if isinstance(threshold, Mapping) else [threshold or 0.0]
    unknown = sorted(by_label.keys() - set(labels))
    if unknown:
        raise ConfigError(f"threshold: {unknown[0]!r} is not one of {', '.join(labels)}")
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise ConfigError(f"threshold {threshold}: a probability lies between 0 and 1")


def _engine(
    model: str | Path | None, adapter: str | Path | None, backend: Backend | Config | None
) -> Backend:
    if backend is None:
        if model is None:
            raise ConfigError("say which model answers: a folder, a hub name, or 'tiny'")
        backend = LocalModel(model=str(model), adapter=None if adapter is None else Path(adapter))
    return backends.start(backend) if isinstance(backend, Config) else backend


def default_sampling(schema: Schema, *, thinking: bool = False) -> Sampling:
    """Greedy, stopped at the end of a call where the schema answers by one."""
    stop = (TOOL_CALL_CLOSE,) if isinstance(schema.form, ToolForm) else ()
    return Sampling(stop=stop, thinking=thinking)


def prompt_fields(schema: Schema) -> list[str]:
    """Names of the inputs that the schema's prompt shows."""
    found: list[str] = []
    for part in schema.prompt.parts:
        lines = getattr(part, "lines", None)
        found += [key for _, key in lines] if lines is not None else []
        found += [part.field] if hasattr(part, "field") else []
    return found


def askable(rows: Iterable[Record | Reject], schema: Schema) -> Iterator[Record | Reject]:
    """The rows; one that has nothing of what the schema's prompt shows becomes a `Reject`."""
    known = prompt_fields(schema)
    for row in rows:
        if isinstance(row, Reject) or _shows_something(row, known):
            yield row
            continue
        has = ", ".join(row.fields) or "nothing"
        reason = f"the prompt of {schema.name} shows {', '.join(known)} and images; the row has {has}"
        yield Reject(source=row.source, code="NO_INPUT", reason=reason)


def _shows_something(record: Record, known: Sequence[str]) -> bool:
    own = record.messages is not None or bool(record.images)
    return own or any(record.fields.get(name) for name in known)
