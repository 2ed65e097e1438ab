"""Ask a model with validated answers, without gold.

How it works: prompts come from `dfkdata.rows.messages`, so a prediction asks exactly what training taught.
Schema, form, system text, tools and thinking come from the `dfk.json` of the adapter or merged model if they
are not given, and a mismatch is refused.

Guarantees:
- An answer that is not valid has no value, and neither has one that is less sure than the threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dfkdata import schemas
from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.rows.messages import prompt
from dfkdata.rows.record import Record, Scaffold
from dfkdata.schemas import Schema, ToolForm
from dfkeval import backends
from dfkeval.backends import Backend
from dfkeval.backends.transformers import Config as LocalModel
from dfkeval.evaluation.grading import EvalItem, grade, prompt_text
from dfkeval.evaluation.rows import card_scaffold, read_scaffold, scaffolded_turns
from dfkeval.inference.backend_options import changed
from dfkeval.inference.inputs import CHUNK
from dfkeval.models import metadata
from dfkeval.models.rendering import asked_options
from dfkeval.parsing.label_confidence import require_slot, with_slot
from dfkeval.parsing.tags import TOOL_CALL_CLOSE
from dfkeval.types import Completion, Request, Sample, Sampling

Threshold = float | Mapping[str, float]
"""The least probability of an answer's label, for all labels or by label; a label without one is accepted."""


class PredictionError(DfkError):
    """The model's answer is not valid, or not sure enough.

    Attributes:
        sample: The graded answer, with its raw text and its problems.
        outcome: The sample's outcome, or "abstained".

    Example:
        >>> from dfkeval import PredictionError, Predictor
        >>> from dfkeval.backends import Completion
        >>> from dfkeval.backends.scripted import Scripted
        >>> backend = Scripted({"1": Completion(id="1", text=" ")})
        >>> predictor = Predictor(schema="answer", backend=backend)
        >>> try:
        ...     predictor(question="Ibu kota Indonesia?")
        ... except PredictionError as error:
        ...     print(error.outcome)
        empty
    """

    def __init__(self, sample: Sample, outcome: str | None = None, reason: str | None = None) -> None:
        self.sample, self.outcome = sample, outcome or sample.outcome
        explanation = reason or "; ".join(sample.problems) or "no reason given"
        super().__init__(f"no valid answer ({self.outcome}): {explanation}")


class Predictor:
    """A loaded model that answers in one schema.

    Args:
        model: A model folder, a Hub name, or "tiny".
        adapter: Folder of a LoRA adapter.
        schema: Output schema; None takes the adapter's.
        variant: Its prompt and answer form; None takes the adapter's.
        sampling: How text is drawn; None is greedy with the schema's stop string.
        settings: Changes to the sampling, such as "max_new_tokens=64".
        backend: Something loaded, or the configuration of a backend, that answers instead of `model`.
        scaffold: A task_1 file with the system text and tools of a foreign adapter.
        confidences: Whether to ask how sure the model is of each label.
        threshold: Abstain below this probability; implies `confidences`.

    Raises:
        ConfigError: The arguments do not fit together, or do not fit the adapter's `dfk.json`.
        BackendError: The model cannot be loaded.

    Example:
        >>> from dfkeval import Predictor
        >>> from dfkeval.backends import Completion
        >>> from dfkeval.backends.scripted import Scripted
        >>> backend = Scripted({"1": Completion(id="1", text="Jakarta")})
        >>> predictor = Predictor(schema="answer", backend=backend)
        >>> predictor(question="Ibu kota Indonesia?")
        {'answer': 'Jakarta'}
    """

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
        folder, trained = _metadata(model, adapter, backend)
        where = f"{folder}/{metadata.NAME}"
        self.schema = _schema(schema, variant, trained, where)
        default = default_sampling(self.schema, trained)
        self.sampling = changed(sampling if sampling is not None else default, settings, "--set")
        self.scaffold = _scaffold(scaffold, trained, where, self.schema)
        if trained is not None:
            requested = {"form": self.schema.variant} | {
                name: getattr(self.sampling, name) for name in ("thinking", "reasoning_effort")
            }
            metadata.check_matches(trained, where, requested)
        self.threshold = threshold
        self.confidences = confidences or threshold is not None
        if self.confidences:
            _check_threshold(threshold, list(require_slot(self.schema).written))
        self.backend = _backend(model, adapter, backend)

    def __call__(
        self, *, image: str | Path | None = None, images: Sequence[str | Path] = (), **fields: str
    ) -> dict[str, Any]:
        """Return the validated answer to one question.

        Args:
            image: A picture.
            images: More pictures.
            **fields: The prompt's inputs by name: title and text for dfk_label, caption for caption.

        Raises:
            PredictionError: The answer is not valid, or not sure enough.
            ConfigError: The prompt does not use one of the fields.
        """
        sample = self.sample(images=[*([image] if image is not None else []), *images], fields=fields)
        reason = self.abstains(sample)
        if reason is not None:
            raise PredictionError(sample, "abstained", reason)
        if sample.value is None:
            raise PredictionError(sample)
        return sample.value

    def sample(self, *, images: Sequence[str | Path] = (), fields: Mapping[str, str]) -> Sample:
        """Return the graded answer to one question, with its raw text, problems and confidence.

        Raises:
            ConfigError: The prompt does not use one of the fields, or there is nothing to ask.
        """
        self.check_fields(fields)
        if not images and not any(text.strip() for text in fields.values()):
            names = ", ".join(self.schema.prompt.fields)
            raise ConfigError(f"nothing to ask: give an image or one of {names or 'no texts'}")
        paths = tuple(str(path) for path in images)
        return next(self.samples([Record(id="1", group="1", source="", fields=dict(fields), images=paths)]))

    def check_fields(self, fields: Iterable[str]) -> None:
        """Raise `ConfigError` for a field that the prompt does not use."""
        known = self.schema.prompt.fields
        unknown = sorted(set(fields) - set(known))
        if unknown:
            near = plugins.suggestion(unknown[0], known)
            raise ConfigError(
                f"{self.schema.name} has no input {unknown[0]!r}{near} (inputs: {', '.join(known) or 'none'})"
            )

    def samples(self, records: Iterable[Record]) -> Iterator[Sample]:
        """Yield the graded answers in the order of the records, which are asked in chunks."""
        waiting = iter(records)
        while chunk := list(islice(waiting, CHUNK)):
            items = [self.item(record) for record in chunk]
            answers = {completion.id: completion for completion in self.answers(items)}
            yield from grade(items, answers, self.schema)

    def answers(self, items: Iterable[EvalItem]) -> Iterator[Completion]:
        """Yield the backend's completions, in any order, as they come."""
        return self.backend.generate([item.request for item in items], self.sampling)

    def item(self, record: Record) -> EvalItem:
        """Return what is asked for one record."""
        messages = scaffolded_turns(prompt(record, self.schema), self.scaffold)
        tools = record.tools if record.tools is not None else self.schema.tools
        if self.scaffold is not None and self.scaffold.tools:
            tools = self.scaffold.tools
        request = Request(
            id=record.id,
            messages=messages,
            images=record.images,
            tools=tools,
            videos=record.videos,
            template_options=asked_options(record.chat_template_kwargs),
        )
        if self.confidences:
            request = with_slot(request, self.schema)
        source = record.meta.get("text")
        source_text = source if isinstance(source, str) else None
        return EvalItem(request, record.group, None, source_text, prompt_text(messages), "")

    def abstains(self, sample: Sample) -> str | None:
        """Return why a valid answer is not sure enough; None if it is, or if there is no threshold."""
        if self.threshold is None or sample.value is None or sample.label is None:
            return None
        by_label = self.threshold if isinstance(self.threshold, Mapping) else None
        least = by_label.get(sample.label) if by_label is not None else self.threshold
        if not isinstance(least, int | float):
            return None
        if sample.confidence is None:
            return f"the confidence in {sample.label!r} is not known, and {least:g} is wanted"
        if sample.confidence >= least:
            return None
        return f"the confidence in {sample.label!r} is {sample.confidence:.3f}, below {least:g}"

    def close(self) -> None:
        """Free the model."""
        self.backend.close()


def _metadata(
    model: str | Path | None, adapter: str | Path | None, backend: Backend | Config | None
) -> tuple[Path | None, metadata.ModelMetadata | None]:
    """Return (folder of the model's `dfk.json`, its content)."""
    if isinstance(backend, Config):
        model, adapter = getattr(backend, "model", model), getattr(backend, "adapter", adapter)
    folder = metadata.folder_of(model, adapter)
    return folder, metadata.read(folder) if folder is not None else None


def _schema(
    schema: str | Schema | None, variant: str | None, trained: metadata.ModelMetadata | None, where: str
) -> Schema:
    if schema is None and (trained is None or trained.schema is None):
        raise ConfigError("say which schema the model answers in, for example schema='dfk_label'")
    if variant is None and trained is not None and schema in (None, trained.schema):
        variant = trained.form
    if schema is not None:
        chosen = schemas.load(schema, variant)
    else:
        chosen = schemas.load(str(trained and trained.schema), variant, source=where)
    if trained is not None and trained.schema not in (None, chosen.name):
        raise ConfigError(f"the adapter was trained on schema {trained.schema!r}, not {chosen.name!r}")
    return chosen


def _scaffold(
    path: str | Path | None, trained: metadata.ModelMetadata | None, where: str, schema: Schema
) -> Scaffold | None:
    if path is None:
        return card_scaffold(trained, where, schema)
    own = read_scaffold(path, schema)
    if trained is not None:
        metadata.check_matches(trained, where, {"system_prompt": own.system, "tools": own.tools})
    return own


def _check_threshold(threshold: Threshold | None, labels: Sequence[str]) -> None:
    by_label = threshold if isinstance(threshold, Mapping) else {}
    numbers = by_label.values() if isinstance(threshold, Mapping) else [threshold or 0.0]
    unknown = sorted(by_label.keys() - set(labels))
    if unknown:
        raise ConfigError(f"threshold: {unknown[0]!r} is not one of {', '.join(labels)}")
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise ConfigError(f"threshold {threshold}: a probability lies between 0 and 1")


def _backend(
    model: str | Path | None, adapter: str | Path | None, backend: Backend | Config | None
) -> Backend:
    if backend is None:
        if model is None:
            raise ConfigError("say which model answers: a folder, a hub name, or 'tiny'")
        backend = LocalModel(model=str(model), adapter=None if adapter is None else Path(adapter))
    return backends.start(backend) if isinstance(backend, Config) else backend


def default_sampling(schema: Schema, trained: metadata.ModelMetadata | None = None) -> Sampling:
    """Return greedy sampling, which stops at the end of a call if the schema answers by one.

    Args:
        schema: The schema of the answers.
        trained: What the model was trained with; its answers are asked with as much thinking.
    """
    stop = (TOOL_CALL_CLOSE,) if isinstance(schema.form, ToolForm) else ()
    if trained is None or not trained.thinking:
        return Sampling(stop=stop)
    return Sampling(stop=stop, thinking=True, reasoning_effort=trained.reasoning_effort)
