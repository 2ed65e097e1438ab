"""How sure a model is of the label it gives: one probability for each class of the closed set.

Definition. Let the model's answer run up to the place where its form names the label ("Label:"). For each
class c, p(c) is the probability that the model goes on with c's spelling and what the form writes behind it
("\\n\\nAnalisis:"), given the prompt and the answer up to that place; the p(c) are then divided by their sum.
With what follows in it, no class is the beginning of another; lengths are not normalised, since a longer
spelling is no other event than a shorter one. The sum before the division is not kept: a model that wants to
say something else altogether can still be sure between the classes.

Where the answer never comes to that place, nothing is known and there are no probabilities. Servers show only
the likeliest tokens of each step: see `from_alternatives` for what is then left of the definition."""

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
    """The first field with the role `Label`, None without one."""
    return next(((name, role) for name, role in schema.roles.items() if isinstance(role, Label)), None)


def label_of(value: Mapping[str, Any] | None, schema: Schema) -> str | None:
    """The class that `value` names."""
    found = label_field(schema)
    label = value.get(found[0]) if value is not None and found is not None else None
    return label if isinstance(label, str) else None


def slot_of(schema: Schema) -> LabelSlot | None:
    """Where an answer in `schema` names its label; None for a schema without a label."""
    found = label_field(schema)
    if found is None:
        return None
    field, role = found
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
    """`slot_of`. Raises `ConfigError` for a schema without a label."""
    slot = slot_of(schema)
    if slot is None:
        raise ConfigError(
            f"confidences: schema {schema.name!r} has no field with the role Label; leave `confidences` out"
        )
    return slot


def with_slot(request: Request, schema: Schema) -> Request:
    """The request that asks for label probabilities as well. Raises `ConfigError` as `require_slot`."""
    return replace(request, slot=require_slot(schema))


def continuations(text: str, slot: LabelSlot) -> tuple[str, dict[str, str]] | None:
    """(the answer up to its label, class -> how the answer would go on); None where it names no label.

    Blanks that end the marker belong to what follows, since tokenizers join them to the next word."""
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
    """Log-probabilities -> probabilities that sum to 1; None where one is not a number, or no class has
    any."""
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
    """Label probabilities from a server's log-probabilities: each step's token, and its likeliest tokens with
    that one among them.

    Each alternative is followed to the token at which it can only be one class, and gives that class its
    probability; the answer's own way is followed further while it may still be several. What the server does
    not show counts as 0, and what comes after the deciding token as certain: so these figures agree with the
    definition where spellings differ in their first token, and are None where no class is seen at all."""
    text = "".join(token for token, _ in steps)
    found = continuations(text, slot)
    if found is None:
        return None
    before, ways = found
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
    return {label: each / total for label, each in mass.items()} if total > 0 else None


def _give(mass: dict[str, float], ways: Mapping[str, str], text: str, share: float) -> None:
    """`share` to the one class that `text` begins; to none where it may be several."""
    fitting = _fitting(ways, text)
    if len(fitting) == 1:
        mass[fitting[0]] += share


def _fitting(ways: Mapping[str, str], text: str) -> list[str]:
    """The classes that `text` may still become, or already is."""
    return [label for label, way in ways.items() if way.startswith(text) or text.startswith(way)]
