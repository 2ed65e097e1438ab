"""Compute how sure a model is of its label: one probability for each class of the closed set.

Definition: let the model's answer run up to the place where its form names the label ("Label:"). For each
class c, p(c) is the probability that the model continues with the spelling of c and with what the form
writes behind it ("\\n\\nAnalisis:"), given the prompt and the answer up to that place. The p(c) are
divided by their sum. Because of what follows, no class is the beginning of another. Lengths are not
normalised, since every spelling is the same event whatever its length. The sum before the division is
dropped: a model that wants to say something else altogether can still be sure between the classes.

If the answer does not contain the label marker, no probabilities are returned. Servers show only the
likeliest tokens of each step; `from_alternatives` says what is then left of the definition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dfkdata.common.errors import ConfigError
from dfkdata.schemas import JsonForm, Label, Schema, TextForm, ToolForm
from dfkeval.parsing.marked_text import visible_span
from dfkeval.parsing.tags import PARAMETER_CLOSE, parameter_open
from dfkeval.types import LabelSlot, Request


def label_field(schema: Schema) -> tuple[str, Label] | None:
    """Return the name and role of the first field with the role `Label`; None if there is none."""
    return next(((name, role) for name, role in schema.roles.items() if isinstance(role, Label)), None)


def label_of(value: Mapping[str, Any] | None, schema: Schema) -> str | None:
    """Return the class that an answer names; None if it names none."""
    field = label_field(schema)
    label = value.get(field[0]) if value is not None and field is not None else None
    return label if isinstance(label, str) else None


def slot_of(schema: Schema) -> LabelSlot | None:
    """Return where an answer in `schema` names its label; None for a schema without a label."""
    labelled = label_field(schema)
    if labelled is None:
        return None
    field, role = labelled
    match schema.form:
        case TextForm() as form:
            place = [name for _, name in form.parts].index(field)
            behind = form.parts[place + 1][0] if place + 1 < len(form.parts) else form.end
            spelling = dict(form.printed)
            written = {label: spelling.get(label, label) for label in role.labels.canonical}
            return LabelSlot(marker=form.parts[place][0], written=written, closing=behind.rstrip())
        case ToolForm():
            marker, closing = f"{parameter_open(field)}\n", f"\n{PARAMETER_CLOSE}"
        case JsonForm():
            marker, closing = f'"{field}":"', '"'
    return LabelSlot(
        marker=marker, written={label: label for label in role.labels.canonical}, closing=closing
    )


def require_slot(schema: Schema) -> LabelSlot:
    """Return where an answer in `schema` names its label.

    Raises:
        ConfigError: if the schema has no label."""
    slot = slot_of(schema)
    if slot is None:
        raise ConfigError(
            f"confidences: schema {schema.name!r} has no field with the role Label; leave `confidences` out"
        )
    return slot


def with_slot(request: Request, schema: Schema) -> Request:
    """Return the request with a question for label probabilities.

    Raises:
        ConfigError: if the schema has no label."""
    return replace(request, slot=require_slot(schema))


def continuations(text: str, slot: LabelSlot) -> tuple[str, dict[str, str]] | None:
    """Return the ways in which an answer can continue with a label.

    Blanks at the end of the marker belong to the continuation, since tokenizers join them to the next word.

    Args:
        text: the answer.
        slot: where it names its label.

    Returns:
        The answer up to its label, and class -> continuation; None if the answer has no label marker."""
    head = slot.marker.rstrip()
    start, end = visible_span(text)
    at = text.find(head, start, end)
    if not head or at < 0:
        return None
    blanks = slot.marker[len(head) :]
    return text[: at + len(head)], {
        label: f"{blanks}{word}{slot.closing}" for label, word in slot.written.items()
    }


def normalised(scores: Mapping[str, float]) -> dict[str, float] | None:
    """Return log-probabilities as probabilities that sum to 1; None if one is not a number, or all are 0."""
    if any(math.isnan(score) for score in scores.values()):
        return None
    top = max(scores.values(), default=-math.inf)
    if not math.isfinite(top):
        return None
    weights = {label: math.exp(score - top) for label, score in scores.items()}
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def from_alternatives(
    steps: Sequence[tuple[str, Mapping[str, float]]], slot: LabelSlot
) -> dict[str, float] | None:
    """Return label probabilities from the likeliest tokens that a server shows at each step.

    Each alternative is followed to the token at which it can only be one class, and gives that class its
    probability; the answer's own tokens are followed further while they may still become several classes.
    What the server does not show counts as 0, and what comes after the deciding token as certain. So the
    figures agree with the definition if the spellings differ in their first token.

    Args:
        steps: the token of each step, and token -> log-probability of its likeliest tokens, itself included.
        slot: where the answer names its label.

    Returns:
        Class -> probability; None if no class is seen at all."""
    text = "".join(token for token, _ in steps)
    continued = continuations(text, slot)
    if continued is None:
        return None
    before, ways = continued
    mass = dict.fromkeys(ways, 0.0)
    way, path, position = "", 1.0, 0
    for token, alternatives in steps:
        begin, position = position, position + len(token)
        if position <= len(before):
            continue
        cut = max(0, len(before) - begin)
        for other, logprob in alternatives.items():
            if other != token and other[:cut] == token[:cut]:
                _give(mass, ways, way + other[cut:], path * math.exp(logprob))
        way, path = way + token[cut:], path * math.exp(alternatives[token])
        if len(_fitting(ways, way)) < 2:
            _give(mass, ways, way, path)
            break
    total = math.fsum(mass.values())
    return {label: share / total for label, share in mass.items()} if total > 0 else None


def _give(mass: dict[str, float], ways: Mapping[str, str], text: str, share: float) -> None:
    """Add `share` to the one class that `text` begins; to none if it may become several."""
    fitting = _fitting(ways, text)
    if len(fitting) == 1:
        mass[fitting[0]] += share


def _fitting(ways: Mapping[str, str], text: str) -> list[str]:
    """Return the classes that `text` may still become, or already is."""
    return [label for label, way in ways.items() if way.startswith(text) or text.startswith(way)]
