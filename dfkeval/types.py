"""The shapes that flow through an evaluation: what is asked, what came back, what it was worth.

    row -> Request -> Backend.generate -> Completion (stored verbatim) -> decode -> Sample -> Metric ->
    Estimate

Promises: a `Completion` holds the model's bytes and is never repaired; a `Sample` has exactly one outcome
of `OUTCOMES`, so rates over outcomes sum to 100 %. A request that failed is not an answer: it is counted
apart and never scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, model_validator

from dfkdata.common.config import Config
from dfkdata.common.errors import DataError

FinishReason = Literal["stop", "length", "error"]

#: How answers are written: freely, as any JSON object, or held to the schema's own form
#: (`dfkeval.evaluation.constraints`).
Mode = Literal["free", "json_mode", "constrained"]

#: How an answer can come out.
OUTCOMES: dict[str, str] = {
    "ok": "valid as it stands (strict reading)",
    "repaired": "valid only after named repairs (lenient reading)",
    "truncated": "generation stopped at its token limit inside the answer",
    "empty": "nothing but blanks",
    "no_call": "no answer in the expected form",
    "wrong_function": "a call of another function",
    "bad_xml": "the tags of the call do not fit together",
    "bad_json": "a value that should be JSON is not",
    "ambiguous": "two readings are well-formed",
    "schema_invalid": "well-formed, but not what the schema allows",
    "unknown_label": "a label outside the closed set",
    "class_refused": "the JSON Schema takes it, the answer class refuses it",
    "unclosed_think": "the think block was opened and never closed, so there is no answer",
    "request_failed": "the engine or server gave no answer",
    "timeout": "the engine or server did not answer in time",
    "no_gold": "the row's own gold does not fit the schema",
}

#: Outcomes that say nothing about the model: left out of every metric and counted apart.
NOT_ANSWERED = frozenset({"request_failed", "timeout"})


class LabelSlot(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer names its label. marker: what is written before it. written: canonical label -> its
    spelling. closing: what follows it; empty for the end of the answer. `dfkeval.parsing.label_confidence` makes it."""

    marker: str
    written: dict[str, str]
    closing: str


ConstraintKind = Literal["structural_tag", "grammar", "json_schema", "json_object"]


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must match while it is written (`dfkeval.evaluation.constraints` derives it from a schema).

    text: a structural tag or a JSON Schema as JSON, or an EBNF grammar with the rule `root`; empty for
    json_object."""

    kind: ConstraintKind
    text: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `messages`: chat turns with parts {"type": "text"|"image"}; `images`: paths in
    placeholder order; `slot`: asks for the probability of each label as well. draw_index: which draw of the
    same question this is, from 0. constraint: None for a free answer. force_tool: the function that a server
    is told to have called, whatever the model would rather do."""

    id: str
    messages: list[dict[str, Any]]
    images: tuple[str, ...] = ()
    tools: list[dict[str, Any]] | None = None
    slot: LabelSlot | None = None
    draw_index: int = 0
    constraint: Constraint | None = None
    force_tool: str | None = None


def refuse_unseen(turns: Iterable[Mapping[str, Any]]) -> None:
    """Raise `DataError` for video and audio in `turns`: a request carries pictures only, and the model would
    be asked about something that it was not shown."""
    contents = (turn.get("content") for turn in turns)
    for part in (part for parts in contents if isinstance(parts, list) for part in parts):
        if part.get("type") in ("video", "audio"):
            raise DataError(f"the turns hold {part['type']}, which cannot be asked here; leave the row out")


class Sampling(Config):
    """How text is drawn. temperature 0 is greedy, and then top_p, top_k and min_p do not matter.

    max_new_tokens: limit of one answer, in tokens. stop: strings that end an answer; they stay in its text.
    seed, repeats: each row is drawn `repeats` times; a draw depends on the seed, its number and the question
    alone. thinking: whether the template opens a think block for the model. thinking_budget: tokens of
    reasoning, after which the block is closed for the model; they come on top of `max_new_tokens`. None lets
    reasoning and answer share `max_new_tokens`."""

    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    seed: int = 0
    repeats: int = Field(default=1, ge=1)
    thinking: bool = False
    thinking_budget: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Sampling:
        if self.repeats > 1 and self.temperature == 0:
            raise ValueError("repeats draws the same greedy answer again; set a temperature above 0")
        if self.thinking_budget is not None and not self.thinking:
            raise ValueError("thinking_budget limits reasoning; set thinking: true")
        return self

    @property
    def limit(self) -> int:
        """Tokens of reasoning and answer together."""
        return self.max_new_tokens + (self.thinking_budget or 0)


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one request, verbatim.

    text: the generated text with its stop string, without the stop token and padding. seconds: wall time of
    the request, or of its batch. error: why there is no answer, when finish_reason is "error". timed_out:
    the error was a time limit. restored_stop: the server dropped this stop string and it was put back.

    server_parsed: the server returned a parsed call, and the text is that call written again.
    label_probs: canonical label -> its probability over the closed set (`dfkeval.parsing.label_confidence`); None where it
    was not asked for or cannot be known.

    reasoning: what stood in the think block that the prompt opened, None without one; `text` is then what
    follows it. unclosed_think: that block was never closed, and the text is empty. thinking_cut: the block
    was closed for the model when its budget was spent. first_token_seconds: from the start of the attempt
    that was answered, or of its batch, to its first token; None where it is not known. cached: taken from the
    response cache; seconds are those of the first time.

    server_calls: what the server's own parser made of the answer, [{"name", "arguments"}], None where it was
    not asked for. server_source: where `text` comes from then: "same answer", "two greedy requests", or "no
    raw text"."""

    id: str
    text: str
    finish_reason: FinishReason = "stop"
    n_prompt_tokens: int | None = None
    n_output_tokens: int | None = None
    error: str | None = None
    seconds: float | None = None
    timed_out: bool = False
    restored_stop: str | None = None
    server_parsed: bool = False
    label_probs: dict[str, float] | None = None
    reasoning: str | None = None
    unclosed_think: bool = False
    thinking_cut: bool = False
    first_token_seconds: float | None = None
    cached: bool = False
    server_calls: list[dict[str, Any]] | None = None
    server_source: str | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One judged answer.

    outcome: one of `OUTCOMES`. gold: the row's answer, None if it has none. value: the strictly decoded
    answer, None unless outcome is "ok". lenient: the answer after named repairs; equal to `value` where
    that exists. repairs: what lenient did, or the aliases that strict resolved. problems: what is wrong,
    one readable line each. text: the raw answer. source_text: what the answer must be grounded in, None for
    none. prompt: the asked text, images as `<image>`. label: the answered class, of `lenient`, where the
    schema has one. label_probs: as in the completion. draw_index: which draw of its row this is, from 0
    (`repeat` in files).
    reasoning: what the model thought before it answered, None for nothing. gold_nll, gold_tokens: as in
    `Likelihood`; None where it was not asked for or could not be given. differs: where JSON Schema and answer
    class disagree on the answer, in words with the place; None where they agree."""

    id: str
    group: str
    outcome: str
    gold: dict[str, Any] | None
    value: dict[str, Any] | None
    lenient: dict[str, Any] | None
    text: str
    repairs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    source_text: str | None = None
    images: tuple[str, ...] = ()
    prompt: str = ""
    key: str = ""
    finish_reason: FinishReason = "stop"
    n_prompt_tokens: int | None = None
    n_output_tokens: int | None = None
    seconds: float | None = None
    label: str | None = None
    label_probs: dict[str, float] | None = None
    first_token_seconds: float | None = None
    draw_index: int = msgspec.field(default=0, name="repeat")
    reasoning: str | None = None
    gold_nll: float | None = None
    gold_tokens: int | None = None
    differs: str | None = None

    @property
    def confidence(self) -> float | None:
        """The probability of the label that was answered, in [0, 1]; None where either is not known."""
        return self.label_probs.get(self.label) if self.label_probs and self.label is not None else None

    @property
    def answered(self) -> bool:
        """Whether the model answered at all."""
        return self.outcome not in NOT_ANSWERED


class GoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A question with the answer that the row teaches. turn: the assistant's message."""

    request: Request
    turn: dict[str, Any]


class Likelihood(msgspec.Struct, frozen=True, kw_only=True):
    """How likely a model finds a row's gold answer.

    nll: negative log-likelihood in nats, summed over the answer's tokens and its stop token, given the
    prompt. tokens: their number. error: why there is none, the other two being 0 then."""

    id: str
    nll: float = 0.0
    tokens: int = 0
    error: str | None = None
