"""Unlabelled captions -> training rows: a teacher model is asked, its answers are judged, and what passes
becomes a `task_1` row with its accounting.

    task_1.jsonl     {"id", "messages": [system, user, assistant with one tool call], "tools", "meta"}
    rejected.jsonl   one `Rejected` for every other row: why, and what the teacher said

Strategy: the teacher is asked with a prompt of its own (strict: only what the caption says; enhance: style
and mood may be inferred) and made to call the tool; the row is written with the schema's system text, which
the student will be asked with. Promises: each input row ends in exactly one of the two files; nothing is
mended: only a strictly valid answer that every validator accepts is kept; a killed run loses what was in
flight and goes on; failed requests are asked again; copies of a caption are paid for once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from dfkdata import locks, schemas
from dfkdata.errors import ConfigError
from dfkdata.formats.task_1 import Scaffold
from dfkdata.records import Record, Reject
from dfkdata.rows import answer_turn, prompt
from dfkdata.schemas import ToolForm
from dfkeval import constraints, engines, lines, scaffolds, validators
from dfkeval.judging import Item, judge, prompt_text
from dfkeval.prediction import CHUNK, askable, default_sampling
from dfkeval.predictions import name_of, numbered
from dfkeval.samples import NOT_ANSWERED, Backend, Completion, Constraint, Request, Sample, Sampling
from dfkeval.spending import Prices, Purse, prompt_tokens

Prompt = Literal["strict", "enhance"]
ToolChoice = Literal["forced", "auto"]
KEPT, REJECTED = "task_1.jsonl", "rejected.jsonl"

_LITERAL = (
    "You turn image captions into data. Call the tool exactly once. Say what the caption says, in its own "
    "words: every subject with the attributes that the caption gives it, every action or relation as a short "
    "phrase with its participants, and the setting only if the caption tells it. Add nothing, infer nothing, "
    "rename nothing; leave a slot empty rather than guess."
)
#: How the teacher is asked, and the schema that it answers in.
PROMPTS: dict[Prompt, tuple[str, str]] = {
    "strict": ("caption", _LITERAL),
    "enhance": (
        "caption_enhance",
        f"{_LITERAL} Two slots are an exception: style and mood may be inferred from the caption, in a few "
        "words; leave them null where nothing hints at them.",
    ),
}
DEFAULT_VALIDATORS: dict[str, dict[str, Any]] = {"schema_valid": {}, "grounding": {"minimum": 1.0}}


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was not kept. outcome: of the answer, or "rejected" for a row that cannot be asked,
    "duplicate" for a copy. reason: the validator's, or why. meta: as of a kept row."""

    id: str
    outcome: str
    reason: str
    source: str = ""
    caption: str = ""
    text: str = ""
    meta: dict[str, Any] = {}


@dataclass
class Totals:
    """What a folder of labels holds. reasons: first words of a rejection -> rows. cost: None where it is not
    known for every answered row. untold: answers that do not tell their tokens. stopped: a cap on the cost
    left rows unasked."""

    kept: int = 0
    rejected: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    untold: int = 0
    stopped: bool = False

    def add(self, meta: Mapping[str, Any]) -> None:
        """Count the tokens and the cost of one answer."""
        self.untold += None in (meta.get("input_tokens"), meta.get("output_tokens"))
        self.prompt_tokens += meta.get("input_tokens") or 0
        self.output_tokens += meta.get("output_tokens") or 0
        known = self.cost is not None and meta.get("cost") is not None
        self.cost = (self.cost or 0.0) + meta["cost"] if known else None


class Labeller:
    """A teacher, its prompt and the judges of its answers.

    prompt: "strict" or "enhance"; schema: another schema with a tool than the prompt's. wanted: validators
    and their options. tool_choice: "forced" makes the teacher call the tool: a server by its `tool_choice`, a
    local engine by a grammar; "auto" only shows it. Raises `ConfigError` for what does not fit together."""

    def __init__(
        self,
        backend: Backend,
        *,
        prompt: Prompt = "strict",
        schema: str | None = None,
        wanted: Mapping[str, Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice = "forced",
        sampling: Sampling | None = None,
        prices: Prices | None = None,
    ) -> None:
        name, self.system = PROMPTS[prompt]
        self.schema = schemas.load(schema or name)
        if not isinstance(self.schema.form, ToolForm):
            raise ConfigError(
                f"label: task_1 rows hold tool calls, and schema {self.schema.name!r} is answered as text"
            )
        self.tool = self.schema.form.name
        self.wanted = dict(DEFAULT_VALIDATORS if wanted is None else wanted)
        self.accept = validators.build(self.wanted, self.schema.name)
        self.backend, self.prompt, self.tool_choice = backend, prompt, tool_choice
        self.constraint = self._constraint()
        self.sampling = sampling if sampling is not None else default_sampling(self.schema)
        self.prices = prices or Prices()

    def _constraint(self) -> Constraint | None:
        """The grammar that forces the call where no server does. Raises `ConfigError` where nothing can."""
        if self.tool_choice == "auto" or self.by_server:
            return None
        if not getattr(self.backend, "constrains", False):
            kind = self.backend.info.get("kind")
            raise ConfigError(
                f"label: backend {kind!r} cannot be made to call the tool; use --tool-choice auto"
            )
        return constraints.constraint(self.schema, "constrained")

    @property
    def by_server(self) -> bool:
        """Whether a server answers."""
        return bool(self.backend.info.get("kind") == "openai")

    def item(self, record: Record) -> Item:
        """What the teacher is asked for one row."""
        asked = scaffolds.applied(prompt(record, self.schema), Scaffold(self.system, self.schema.tools or []))
        forced = self.tool if self.tool_choice == "forced" and self.by_server else None
        request = Request(
            id=record.id, messages=asked, images=record.images, tools=self.schema.tools,
            constraint=self.constraint, force_tool=forced,
        )  # fmt: skip
        source = record.meta.get("text")
        told = source if isinstance(source, str) else None
        return Item(request, record.group, None, told, prompt_text(asked), "")

    def meta(self, sample: Sample, accepted: bool) -> dict[str, Any]:
        """The accounting of one answer."""
        return {
            "model": self.backend.info.get("model"),
            "mode": self.prompt,
            "schema_valid": sample.outcome == "ok",
            "validator_passed": accepted,
            "input_tokens": sample.n_prompt_tokens,
            "output_tokens": sample.n_output_tokens,
            "cost": self.prices.cost(sample.n_prompt_tokens, sample.n_output_tokens),
        }

    def row(self, record: Record, sample: Sample) -> dict[str, Any]:
        """The task_1 row of an accepted answer: texts as strings, null slots left out."""
        assert sample.value is not None
        turns = [_plain(turn) for turn in prompt(record, self.schema)]
        call = answer_turn(sample.value, self.schema)["tool_calls"]
        row: dict[str, Any] = {
            "id": record.id,
            "messages": [*turns, {"role": "assistant", "tool_calls": call}],
            "tools": self.schema.tools,
            "meta": self.meta(sample, True) | {"source": record.source},
        }
        return row | ({"images": [*record.images]} if record.images else {})


def _plain(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn of text alone has its text as content, as published task_1 files have."""
    if any(part["type"] != "text" for part in turn["content"]):
        return turn
    return turn | {"content": "".join(part["text"] for part in turn["content"])}


def label(
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    out: str | Path,
    *,
    cap: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Totals:
    """Label `rows` into the folder `out`; rows that are there already are not asked again.

    cap: the most that the folder's answers may cost together (`dfkeval.spending`). progress: called with the
    number of finished rows. Raises `ConfigError` when the folder was begun with another teacher, prompt,
    schema, sampling or validators, or a cap cannot be kept, `DataError` when its files hold something
    else."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out is a folder")
    with locks.alone(folder / locks.LOCK, "labelling"):
        return _into(folder, labeller, rows, cap, progress)


def _into(
    folder: Path,
    labeller: Labeller,
    rows: Iterable[Record | Reject],
    cap: float | None,
    progress: Callable[[int], None] | None,
) -> Totals:
    kept, rejected = folder / KEPT, folder / REJECTED
    done = {str(row.get("id")) for _, row in lines.finished(kept, dict, TASK)}
    done |= {each.id for each in _rejects(rejected) if each.outcome not in NOT_ANSWERED}
    engines.begin(folder / "label", _record(labeller), begun=bool(done))
    lines.keep(kept, dict, TASK, lambda row: True)
    lines.keep(rejected, Rejected, WHAT, lambda each: each.outcome not in NOT_ANSWERED)
    purse = _purse(cap, labeller, totals(folder))
    encoder = msgspec.json.Encoder()
    with kept.open("ab") as good, rejected.open("ab") as bad:
        for found in _labelled(labeller, rows, frozenset(done), purse):
            file = bad if isinstance(found, Rejected) else good
            file.write(encoder.encode(found) + b"\n")
            file.flush()
            done.add(found.id if isinstance(found, Rejected) else found["id"])
            if progress is not None:
                progress(len(done))
    found_in_all = totals(folder)
    found_in_all.stopped = purse.refused
    return found_in_all


def _purse(cap: float | None, labeller: Labeller, before: Totals) -> Purse:
    """The purse, what the folder's answers cost already taken out. Raises `ConfigError` where it is not
    known."""
    if cap is not None and before.untold:
        raise ConfigError(
            f"{before.untold} answers there do not tell their tokens, so a cap cannot count them; leave "
            "--max-cost out, or give another --out"
        )
    spent = labeller.prices.cost(before.prompt_tokens, before.output_tokens) or 0.0
    return Purse(cap, labeller.prices, labeller.sampling.limit, spent)


TASK, WHAT = "a task_1 row", "a rejected row"


def _rejects(path: Path) -> Iterator[Rejected]:
    return (found for _, found in lines.finished(path, Rejected, WHAT))


def _record(labeller: Labeller) -> dict[str, Any]:
    return {
        "schema": labeller.schema.name,
        "prompt": labeller.prompt,
        "system": labeller.system,
        "tool_choice": labeller.tool_choice,
        "validators": labeller.wanted,
        "sampling": labeller.sampling.model_dump(mode="json"),
        "backend": engines.identity(labeller.backend),
    }


def _labelled(
    labeller: Labeller, rows: Iterable[Record | Reject], done: frozenset[str], purse: Purse
) -> Iterator[dict[str, Any] | Rejected]:
    """A task_1 row or a reject for each row that is not done, as answers come, until the purse is empty."""
    waiting = (row for row in distinct(askable(rows, labeller.schema)) if row.id not in done)
    while chunk := list(islice(waiting, CHUNK)):
        yield from (row for row in chunk if isinstance(row, Rejected))
        records = {row.id: row for row in chunk if isinstance(row, Record)}
        items = {name: labeller.item(record) for name, record in records.items()}
        requests = deque(item.request for item in items.values())
        for completion in _answers(labeller, requests, purse):
            item = items.pop(completion.id)
            sample = judge([item], {completion.id: completion}, labeller.schema)[0]
            yield _verdict(labeller, records[sample.id], sample)
        for request in requests:
            del items[request.id]
        for sample in judge(items.values(), {}, labeller.schema):  # the engine left these out
            yield _verdict(labeller, records[sample.id], sample)
        if requests:
            return


def _answers(labeller: Labeller, waiting: deque[Request], purse: Purse) -> Iterator[Completion]:
    """Answers while there is money; what is not asked stays in `waiting`. Asked in rounds, since answers free
    what was set aside for longer ones."""
    before = -1
    while waiting and len(waiting) != before:
        before = len(waiting)
        for completion in labeller.backend.generate(purse.admitted(waiting), labeller.sampling):
            purse.settle(completion)
            yield completion


def distinct(rows: Iterable[Record | Reject]) -> Iterator[Record | Rejected]:
    """The rows to ask, under names that occur once; unusable rows and copies as rejects."""
    seen: dict[bytes, str] = {}
    for row in numbered(rows):
        if isinstance(row, Reject):
            reason = f"{row.code}: {row.reason}"
            yield Rejected(id=name_of(row), outcome="rejected", reason=reason, source=row.source)
            continue
        content = msgspec.json.encode((row.fields, row.images), order="sorted")
        first = seen.setdefault(sha256(content).digest(), row.id)
        if first == row.id:
            yield row
        else:
            reason = f"duplicate: the same as {first}"
            yield Rejected(id=row.id, outcome="duplicate", reason=reason, source=row.source)


def _verdict(labeller: Labeller, record: Record, sample: Sample) -> dict[str, Any] | Rejected:
    reason = labeller.accept(sample) if sample.answered else f"{sample.outcome}: {sample.problems[0]}"
    if reason is None and sample.value is not None:
        return labeller.row(record, sample)
    return Rejected(
        id=record.id,
        outcome=sample.outcome,
        reason=reason or "schema_valid: the answer is valid only after repairs",
        source=record.source,
        caption=sample.source_text or "",
        text=sample.text,
        meta=labeller.meta(sample, reason is None) if sample.answered else {},
    )


def totals(folder: Path) -> Totals:
    """What the folder holds, counted from its files."""
    found = Totals()
    for _, row in lines.finished(folder / KEPT, dict, TASK):
        found.kept += 1
        found.add(row.get("meta") or {})
    for each in _rejects(folder / REJECTED):
        failed = each.outcome in NOT_ANSWERED
        found.failed += failed
        found.rejected += not failed
        found.reasons[each.reason.split(":")[0]] += 1
        if each.meta:
            found.add(each.meta)
    return found


@dataclass(frozen=True)
class Estimate:
    """Before anything is asked. rows: to ask; total: with those that cannot be.

    prompt_tokens: about, at four bytes a token; output_tokens: at most. cost: at most, or None."""

    rows: int
    total: int
    prompt_tokens: int
    output_tokens: int
    cost: float | None


def estimate(labeller: Labeller, rows: Iterable[Record | Reject]) -> Estimate:
    """What labelling `rows` may take, without images."""
    asked = total = prompt = 0
    for row in distinct(askable(rows, labeller.schema)):
        total += 1
        if isinstance(row, Record):
            asked += 1
            prompt += prompt_tokens(labeller.item(row).request)
    output = asked * labeller.sampling.limit
    return Estimate(asked, total, prompt, output, labeller.prices.cost(prompt, output))
