"""Grade answers: make one sample of a row and its completion, without a model.

Guarantees:

- Every row gives exactly one sample with one outcome of the closed list `OUTCOMES`.
- Strict reading decides the value; lenient reading is only counted.
- A gold that does not fit the schema does not count as a gold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from dfkdata import schemas
from dfkdata.common.data_uri import is_data_uri
from dfkdata.common.json_schema import Validator, schema_validator
from dfkdata.rows.loss_weight import turn_weight
from dfkdata.rows.messages import before_answer
from dfkdata.rows.record import RowError
from dfkdata.schemas import Schema
from dfkeval.models.rendering import asked_options, template_options
from dfkeval.parsing.decode import Decoded, Failure, Form, decode
from dfkeval.parsing.label_confidence import label_of
from dfkeval.parsing.reasoning import split_leading
from dfkeval.parsing.schema_agreement import disagreement
from dfkeval.types import NOT_ANSWERED, OUTCOMES, Completion, Request, Sample


@dataclass(frozen=True)
class EvalItem:
    """One row to ask, and what its answer is compared with.

    Attributes:
        request: The question.
        group: Rows of one group are resampled together.
        gold: The gold answer; None if the row has none.
        source_text: What the answer must be grounded in; None for none.
        prompt: The turns as readable text.
        key: Hash of prompt, tools and image bytes; rows of two runs are comparable if it is equal.
        turn: The assistant's message that the row teaches; None if it teaches none.
        slices: Short facts of the row, as in `Sample`.
    """

    request: Request
    group: str
    gold: dict[str, Any] | None
    source_text: str | None
    prompt: str
    key: str
    turn: dict[str, Any] | None = None
    slices: dict[str, str] = field(default_factory=dict)


def eval_item(row: Mapping[str, Any], schema: Schema, max_image_side: int | None = None) -> EvalItem:
    """Return a row of the messages layout as an item to ask, with images of that many pixels a side at most."""
    meta = row.get("meta") or {}
    request = asked(row, max_image_side)
    source = meta.get("text")
    return EvalItem(
        request,
        str(meta.get("group", row["id"])),
        meta["gold"] if isinstance(meta.get("gold"), dict) else gold_of_messages(row["messages"], schema),
        source if isinstance(source, str) else None,
        prompt_text(request.messages),
        request_key(request),
        row["messages"][-1] if len(request.messages) < len(row["messages"]) else None,
        _slices(meta),
    )


def asked(row: Mapping[str, Any], max_image_side: int | None = None) -> Request:
    """Return the question of a row of the messages layout, with images of that many pixels a side at most."""
    images = tuple(row.get("images") or ())
    return Request(
        id=str(row["id"]), messages=before_answer(row["messages"]), images=images, tools=row.get("tools"),
        videos=tuple(row.get("videos") or ()), max_image_side=max_image_side if images else None,
        template_options=asked_options(template_options(row)),
    )  # fmt: skip


_NO_SLICE = frozenset({"group", "source", "schema", "variant", "gold", "text", "raw_label", "link"})
_LONGEST_SLICE = 60


def _slices(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the short facts in a row's `meta`; numbers with many values tell nothing apart, which reports see to."""
    facts = {
        key: value
        for key, value in meta.items()
        if key not in _NO_SLICE and isinstance(value, str | bool | int)
    }
    return {key: str(value) for key, value in facts.items() if len(str(value)) <= _LONGEST_SLICE}


def gold_of_messages(messages: list[dict[str, Any]], schema: Schema) -> dict[str, Any] | None:
    """Return the answer in the last assistant turn, for rows without a gold in `meta`; None if none can be read, or
    if that turn has the loss weight 0."""
    turn = messages[-1] if messages else {}
    if turn.get("role") != "assistant" or not _teaches(turn):
        return None
    calls = turn.get("tool_calls")
    if calls:
        arguments = calls[0].get("function", {}).get("arguments")
        return arguments if isinstance(arguments, dict) else None
    read = decode("".join(_part_texts(turn)), schema, mode="lenient")
    return read.value if isinstance(read, Decoded) else None


def _teaches(turn: Mapping[str, Any]) -> bool:
    """Return whether a turn is an example; one of weight 0 must not be learned, so it is no gold answer."""
    try:
        return turn_weight(turn, "messages") != 0
    except RowError:
        return True


def request_key(request: Request) -> str:
    """Return the hash of what the model is shown: turns, tools, and the bytes of images and videos."""
    digest = hashlib.sha256(msgspec.json.encode((request.messages, request.tools), order="sorted"))
    for path in (*request.images, *request.videos):
        digest.update(_bytes_of(path))
    if request.template_options:
        digest.update(msgspec.json.encode(request.template_options, order="sorted"))
    if request.max_image_side is not None:
        digest.update(b"max_image_side %d" % request.max_image_side)
    return digest.hexdigest()[:32]


def _bytes_of(image: str) -> bytes:
    """Return the bytes of an image file; an embedded image stands for itself."""
    if is_data_uri(image):
        return image.encode()
    path = Path(image)
    return path.read_bytes() if path.is_file() else b"missing"


def with_draws(items: Iterable[EvalItem], repeats: int) -> list[EvalItem]:
    """Return each item once a draw, row by row (see `drawn`)."""
    return [
        replace(item, request=drawn(item.request, index, repeats))
        for item in items
        for index in range(repeats)
    ]


def drawn(request: Request, index: int, repeats: int) -> Request:
    """Return one of several draws of a question; draw 2 of row "a" has the id "a#2" and the row's group."""
    if repeats == 1:
        return request
    return structs.replace(request, id=draw_name(request.id, index, repeats), draw_index=index)


def draw_name(name: str, index: int, repeats: int) -> str:
    """Return the id of one of several draws of a row."""
    return name if repeats == 1 else f"{name}#{index + 1}"


def grade(
    items: Iterable[EvalItem], completions: Mapping[str, Completion], schema: Schema, form: Form = "schema"
) -> list[Sample]:
    """Return one sample for each item, in their order.

    Args:
        items: The rows that were asked.
        completions: Request id -> completion; an item without one counts as a failed request.
        schema: The schema of the answers.
        form: How answers are written, as in `decode`.
    """
    return list(graded(items, completions, schema, form))


def graded(
    items: Iterable[EvalItem], completions: Mapping[str, Completion], schema: Schema, form: Form = "schema"
) -> Iterator[Sample]:
    """Yield what `grade` returns."""
    return (_sample(item, completions.get(item.request.id), schema, form) for item in items)


def _sample(item: EvalItem, completion: Completion | None, schema: Schema, form: Form) -> Sample:
    if completion is None:
        completion = Completion(id=item.request.id, text="", finish_reason="error", error="no completion")
    answer = _grade(completion, schema, form)
    gold_fault = None if item.gold is None else fault(item.gold, schema)
    if gold_fault is not None and answer.outcome not in NOT_ANSWERED:
        answer = replace(answer, outcome="no_gold", problems=(f"gold: {gold_fault}", *answer.problems))
    return Sample(
        id=item.request.id,
        group=item.group,
        outcome=answer.outcome,
        gold=item.gold if gold_fault is None else None,
        value=answer.value,
        lenient=answer.lenient,
        text=completion.text,
        repairs=answer.repairs,
        problems=answer.problems,
        source_text=item.source_text,
        images=item.request.images,
        prompt=item.prompt,
        key=item.key,
        finish_reason=completion.finish_reason,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_output_tokens=completion.n_output_tokens,
        seconds=completion.seconds,
        label=label_of(answer.lenient, schema),
        label_probs=completion.label_probs,
        first_token_seconds=completion.first_token_seconds,
        draw_index=item.request.draw_index,
        reasoning=_reasoning(completion),
        differs=answer.differs,
        slices=item.slices,
    )


def _reasoning(completion: Completion) -> str | None:
    """Return the reasoning in the block that the prompt opened, or in one that the answer begins with."""
    if completion.reasoning is not None:
        return completion.reasoning
    thought = split_leading(completion.text)
    return None if thought is None else thought.reasoning


@dataclass(frozen=True)
class Grade:
    """The outcome of one answer, and its value by strict and by lenient reading."""

    outcome: str
    value: dict[str, Any] | None = None
    lenient: dict[str, Any] | None = None
    repairs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    differs: str | None = None


_FILTERED = Grade("content_filter", problems=("the server's content filter held the answer back or cut it",))
_UNCLOSED = Grade("unclosed_think", problems=("the think block is never closed",))


def _grade(completion: Completion, schema: Schema, form: Form) -> Grade:
    if completion.error is not None or completion.finish_reason == "error":
        name = "timeout" if completion.timed_out else "request_failed"
        return Grade(name, problems=(completion.error or "no reason given",))
    if completion.finish_reason == "content_filter":
        return _FILTERED
    if completion.unclosed_think:
        return _UNCLOSED
    finished = completion.finish_reason != "length"
    match decode(completion.text, schema, mode="strict", finished=finished, form=form):
        case Decoded(value=value, repairs=repairs):
            return Grade("ok", value, value, tuple(repairs))
        case Failure(kind=kind, problems=problems) as failure:
            lines = tuple(_line(problem) for problem in problems)
            differs = disagreement(completion.text, failure, schema, form)
            failed = Grade(_closed(kind), problems=lines, differs=None if differs is None else _text(differs))
            return _repaired(completion.text, schema, finished, form, failed)


def _repaired(text: str, schema: Schema, finished: bool, form: Form, failed: Grade) -> Grade:
    """Return the grade by lenient reading of an answer that strict reading refused."""
    second = decode(text, schema, mode="lenient", finished=finished, form=form)
    if isinstance(second, Decoded):
        return replace(failed, outcome="repaired", lenient=second.value, repairs=tuple(second.repairs))
    thought = split_leading(text)
    return failed if thought is None or thought.closed else _UNCLOSED


def fault(value: dict[str, Any], schema: Schema) -> str | None:
    """Return the first error of `value` by the JSON Schema, with its place; None if it fits."""
    issues = _validator(schema.name, schema.variant).issues(value)
    return f"{issues[0].pointer or '/'}: {issues[0].message}" if issues else None


@lru_cache(maxsize=16)
def _validator(name: str, variant: str) -> Validator:
    return schema_validator(schemas.load(name, variant).json_schema)


def _closed(kind: str) -> str:
    """Return `kind`, which must be an outcome: a new kind of failure is added to `OUTCOMES` first."""
    if kind not in OUTCOMES:
        raise ValueError(f"decode returned the failure kind {kind!r}, which is not in OUTCOMES")
    return kind


def _line(problem: object) -> str:
    """Return a problem as one readable line: code, place, message."""
    code, message = getattr(problem, "code", ""), getattr(problem, "message", str(problem))
    place = getattr(problem, "json_pointer", None)
    return _text(" ".join(part for part in (code and f"{code}:", place and f"{place}:", message) if part))


def _text(line: str) -> str:
    """Return the line without lone surrogates, which no file can hold."""
    return line.encode("utf-8", "replace").decode("utf-8")


def prompt_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the turns as readable text, with images as `<image>`."""
    return "\n\n".join(f"[{turn['role']}]\n{''.join(_part_texts(turn))}" for turn in messages)


def _part_texts(turn: Mapping[str, Any]) -> Iterator[str]:
    content = turn.get("content") or []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, str):
            yield part
        else:
            yield part.get("text", "") if part.get("type") == "text" else f"<{part.get('type')}>"
