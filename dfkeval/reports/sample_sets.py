"""Lay out the samples of runs for the page's browser: an index of all rows, and their texts in chunks.

How it works. Runs that share rows of one schema are a set, shown side by side. The index holds, by column, what lists
and filters need; a chunk holds the texts of `CHUNK` rows and is read when one of them is looked at. So a page opens
fast whatever its number of rows."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dfkdata.common.data_uri import is_data_uri
from dfkdata.common.media_roots import MediaRoots
from dfkdata.common.stored_lines import MadeSequence
from dfkdata.pages import Words, mask, masked
from dfkdata.pages.pictures import picture_name, small_picture
from dfkdata.schemas import Label, Schema
from dfkeval import metrics
from dfkeval.reports import outcome_look
from dfkeval.reports.answer_pieces import pieces
from dfkeval.reports.formatting import compared
from dfkeval.reports.sample_columns import AnswerColumns, FactColumns, class_of, place_of, rounded
from dfkeval.runs.run import Run, Scored
from dfkeval.types import OUTCOMES, Sample

CHUNK = 1000
LONGEST = 12_000
"""Characters of one text that are shown."""
HEAD = 100
_MARKS = re.compile(r"<(?:image|video|audio)>|^\[\w+\]$", re.MULTILINE)
MANY_PICTURES = 1000
_SCORES = ("fields.f1", "answers.f1", "keywords.phrase_f1", "rouge.f1")
"""Values that tell good rows from bad ones and need no model, the best first."""


@dataclass(frozen=True)
class SampleSet:
    """Runs of one schema that share rows.

    Attributes:
        runs: The runs.
        numbers: The number of each run on the page.
        redact: Whether texts are masked and pictures blurred.
    """

    runs: tuple[Run, ...]
    numbers: tuple[int, ...]
    redact: bool = False

    @property
    def schema(self) -> Schema:
        """The schema of the answers."""
        return self.runs[0].schema

    def shown(self, text: str) -> str:
        """Return a text as the page may show it."""
        return mask(text) if self.redact else text

    @cached_property
    def places(self) -> list[array[int]]:
        """The place of each row's sample in each run, -1 for none; in the order of the first run that has the row."""
        tables = [{sample.id: at for at, sample in enumerate(run.samples)} for run in self.runs]
        names = dict.fromkeys(name for table in tables for name in table)
        return [array("q", (table.get(name, -1) for name in names)) for table in tables]

    @property
    def rows(self) -> Sequence[Sequence[Sample | None]]:
        """Each row's sample of each run, read when it is asked for."""
        return MadeSequence(self._row, range(len(self.places[0])))

    def _row(self, at: int) -> list[Sample | None]:
        places = [column[at] for column in self.places]
        return [
            None if place < 0 else run.samples[place] for run, place in zip(self.runs, places, strict=True)
        ]

    def firsts(self) -> Iterator[Sample]:
        """Yield the first sample of each row."""
        for row in zip(*self.places, strict=True):
            yield next(run.samples[at] for run, at in zip(self.runs, row, strict=True) if at >= 0)

    @cached_property
    def fields(self) -> dict[str, int]:
        """Field of the answer -> its number."""
        return {name: at for at, name in enumerate(self.schema.answer.model_fields)}

    @cached_property
    def label(self) -> tuple[str, Label] | None:
        """The first field that is a label, with its role; None if there is none."""
        return next(
            ((name, role) for name, role in self.schema.roles.items() if isinstance(role, Label)), None
        )


def sets_of(runs: Sequence[Run], *, redact: bool = False) -> list[SampleSet]:
    """Return the runs of a page in sets, in the order of their first runs."""
    groups: list[tuple[list[int], set[str]]] = []
    for place, run in enumerate(runs):
        ids = {sample.id for sample in run.samples}
        for members, known in groups:
            if runs[members[0]].schema.name == run.schema.name and (known & ids or not ids):
                members.append(place)
                known |= ids
                break
        else:
            groups.append(([place], ids))
    return [
        SampleSet(tuple(runs[place] for place in members), tuple(members), redact) for members, _ in groups
    ]


def first_of(row: Sequence[Sample | None]) -> Sample:
    """Return the first sample of a row; every row has one."""
    return next(sample for sample in row if sample is not None)


# --- the index ---------------------------------------------------------------------------------------------


def index(group: SampleSet, w: Words) -> dict[str, Any]:
    """Return what lists and filters need, column by column."""
    form = outcome_look.form_of(group.schema, group.runs[0].config.mode)
    classes = list(group.label[1].labels.canonical) if group.label else []
    gold, pictures = array("i"), array("i")
    facts = FactColumns()
    columns = [AnswerColumns(_scores(run)) for run in group.runs]
    for at, row in enumerate(group.rows):
        first = first_of(row)
        gold.append(place_of(class_of(first.gold, group.label), classes))
        pictures.append(len(first.images))
        facts.add(first)
        for column, places, sample, kind in zip(columns, group.places, row, _kinds(row), strict=True):
            column.add(sample, places[at], kind, group.label, classes)
    slices = facts.slices()
    looks = [outcome_look.look_of(code, form, w) for code in OUTCOMES]
    return {
        "runs": [
            {"name": run.name, "place": place} for run, place in zip(group.runs, group.numbers, strict=True)
        ],
        "labels": classes,
        "fields": list(group.fields),
        "roles": {name: type(role).__name__ for name, role in group.schema.roles.items()},
        "outcomes": [
            {
                "code": look.code,
                "name": look.name,
                "meaning": look.meaning,
                "kind": look.kind,
                "sign": look.sign,
            }
            for look in looks
        ],
        "ids": _ids(group),
        "heads": [group.shown(head) for head in _heads(group)],
        "gold": list(gold),
        "pictures": list(pictures),
        "slices": masked(slices) if group.redact else slices,
        "score": _score_name(group.runs[0]),
        "answers": [column.by_name() for column in columns],
        "chunk": CHUNK,
    }


def _kinds(row: Sequence[Sample | None]) -> list[int]:
    """Return a number for each answer of a row; equal answers with equal outcomes have the same."""
    seen: list[tuple[str, Any] | None] = []
    kinds = []
    for sample in row:
        said = None if sample is None else (sample.outcome, sample.value)
        if said not in seen:
            seen.append(said)
        kinds.append(seen.index(said))
    return kinds


def _ids(group: SampleSet) -> list[str]:
    """Return the ids by which samples are linked; one that points at a person gives way to its row's number."""
    return [
        sample.id if group.shown(sample.id) == sample.id else f"row {at + 1}"
        for at, sample in enumerate(group.firsts())
    ]


def _heads(group: SampleSet) -> list[str]:
    """Return the start of each question, behind what all questions begin with."""
    shared = _shared(map(_question, group.firsts())) if len(group.rows) > 1 else ""
    shared = shared[: shared.rfind(" ") + 1]
    texts = map(_question, group.firsts())
    return [text[len(shared) :][:HEAD] if text.startswith(shared) else text[:HEAD] for text in texts]


def _question(sample: Sample) -> str:
    return " ".join(_MARKS.sub(" ", (sample.source_text or sample.prompt)[:LONGEST]).split())


def _shared(texts: Iterable[str]) -> str:
    """Return what all texts begin with; there is at least one."""
    least = most = None
    for text in texts:
        least = text if least is None else min(least, text)
        most = text if most is None else max(most, text)
    least, most = least or "", most or ""
    length = next((at for at, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return least[:length]


def _score_name(run: Run) -> str:
    """Return the value that rows are sorted by; empty if none can be had without a model."""
    names = run.summary["metrics"]
    return next((name for name in _SCORES if name in names and _cheap(run, name.partition(".")[0])), "")


def _cheap(run: Run, metric: str) -> bool:
    return "measured" in vars(run) or getattr(run.config.metric_options.get(metric), "model", None) is None


def _scores(run: Run) -> list[float | None]:
    name = _score_name(run)
    if not name:
        return [None] * len(run.samples)
    metric_name, _, key = name.partition(".")
    metric, measured = _measured(run, metric_name)
    values = metric.reduce(measured.values, measured.columns)[key]
    return [
        rounded(float(value)) if scored else None
        for value, scored in zip(values, measured.scored, strict=True)
    ]


def _measured(run: Run, name: str) -> Scored:
    """Return one metric of a run without measuring the others, which may need a model."""
    if "measured" in vars(run):
        return run.measured[name]
    full = next(member for member in run.config.metrics if member.rsplit(".", 1)[-1] == name)
    metric = metrics.load(full)
    return metric, metric.measure(run.samples, metrics.Scoring(run.schema, run.config.metric_options))


# --- the texts ---------------------------------------------------------------------------------------------


def chunks(group: SampleSet) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """Yield the texts of `CHUNK` rows, and the pictures that they show as `data:` URIs."""
    side = _side(_count_pictures(group))
    unsupported = [run.summary["details"].get("grounding", {}).get("unsupported", {}) for run in group.runs]
    for start in range(0, len(group.rows), CHUNK):
        book = _PictureBook(side, group)
        yield [_row(row, group, unsupported, book) for row in group.rows[start : start + CHUNK]], book.uris


class _PictureBook:
    """The pictures of a chunk, each once."""

    def __init__(self, side: int, group: SampleSet) -> None:
        self._side, self._group = side, group
        self._places: dict[str, int] = {}
        self.uris: list[str] = []

    def entry(self, image: str, media: MediaRoots) -> list[Any]:
        """Return [name, number among the pictures]; the number is -1 for a picture that cannot be read or shown."""
        if not is_data_uri(image) and not media.permits(image):
            name = self._group.shown(picture_name(image))
            return [f"{name} (outside the media roots; --media-root shows it)", -1]
        if image not in self._places:
            small = small_picture(image, self._side, blurred=self._group.redact)
            self._places[image] = -1 if small is None else len(self.uris)
            self.uris += [] if small is None else [small.uri]
        return [self._group.shown(picture_name(image)), self._places[image]]


def _count_pictures(group: SampleSet) -> int:
    """Return the number of different pictures, or of the first ones if there are many."""
    names = set[str]()
    for sample in group.firsts():
        names.update(sample.images)
        if len(names) > MANY_PICTURES:
            break
    return len(names)


def _side(count: int) -> int:
    """Return the pixels of a picture's longer side: the more pictures, the smaller, so that a page stays light."""
    return 640 if count <= 120 else 320 if count <= MANY_PICTURES else 200


def _row(
    row: Sequence[Sample | None],
    group: SampleSet,
    unsupported: Sequence[Mapping[str, Any]],
    book: _PictureBook,
) -> dict[str, Any]:
    first = first_of(row)
    media = next(run.media for sample, run in zip(row, group.runs, strict=True) if sample is not None)
    told = {
        "prompt": cut(first.prompt),
        "source": cut(first.source_text or ""),
        "gold": _short(first.gold),
        "compared": compared(first),
        "pictures": [book.entry(image, media) for image in first.images],
        "answers": [
            None if sample is None else _answer(sample, run, group, missing.get(sample.id, ()))
            for sample, run, missing in zip(row, group.runs, unsupported, strict=True)
        ],
    }
    return masked(told) if group.redact else told  # fmt: skip


def _answer(sample: Sample, run: Run, group: SampleSet, missing: Sequence[str]) -> dict[str, Any]:
    text, problems = group.shown(cut(sample.text)), list[str]()
    found: list[Any] = [text]
    if sample.answered and len(sample.text) <= LONGEST:
        found, problems = pieces(
            text,
            group.schema,
            group.fields,
            form="json" if run.config.mode == "json_mode" else "schema",
            finished=sample.finish_reason != "length",
            valid=sample.outcome == "ok",
        )
    answer = {
        "text": found,
        "marks": problems,
        "value": _short(sample.value),
        "lenient": _short(sample.lenient) if sample.value is None else None,
        "problems": [cut(problem, 400) for problem in sample.problems],
        "repairs": list(sample.repairs),
        "reasoning": cut((sample.reasoning or "").strip()),
        "sure": {name: round(p, 4) for name, p in (sample.label_probs or {}).items()},
        "missing": list(missing),
        "finish": "" if sample.finish_reason == "stop" else sample.finish_reason,
        "tokens": sample.n_output_tokens,
        "differs": sample.differs or "",
    }
    said = {key: value for key, value in answer.items() if value not in (None, "", [], {})}
    return said if sample.value is None else said | {"value": answer["value"]}


def _short(value: Any) -> Any:
    """Return a value with long texts cut."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value


def cut(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most `longest` characters, with the number of those left out."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest} more characters)"
