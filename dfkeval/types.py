"""The shapes that flow through an evaluation.

    row -> Request -> Backend.generate -> Completion (stored verbatim) -> decode -> Sample -> Metric ->
    Estimate

Guarantees:

- A `Completion` holds the model's text and is never repaired.
- A `Sample` has exactly one outcome of `OUTCOMES`, so the rates of all outcomes sum to 100 %.
- A request that failed is not an answer: it is counted apart and never scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, model_validator

from dfkdata.common.config import Config
from dfkdata.common.errors import DataError

FinishReason = Literal["stop", "length", "content_filter", "error"]

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
    "bad_json": "what should be JSON is not, or is not a call's",
    "bad_text": "the marked text is not of its form",
    "ambiguous": "two readings are well-formed",
    "schema_invalid": "well-formed, but not what the schema allows",
    "unknown_label": "a label outside the closed set",
    "class_refused": "the JSON Schema takes it, the answer class refuses it",
    "unclosed_think": "the think block was opened and never closed, so there is no answer",
    "content_filter": "the server's content filter held the answer back or cut it",
    "request_failed": "the engine or server gave no answer",
    "timeout": "the engine or server did not answer in time",
    "no_gold": "the row's own gold does not fit the schema",
}

#: Outcomes that say nothing about the model: left out of every metric and counted apart.
NOT_ANSWERED = frozenset({"request_failed", "timeout"})


class LabelSlot(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer names its label (`dfkeval.parsing.label_confidence` makes it).

    Attributes:
        marker: The text before the label.
        written: Canonical label -> how answers spell it.
        closing: The text after the label; empty if it ends the answer.
    """

    marker: str
    written: dict[str, str]
    closing: str


ConstraintKind = Literal["structural_tag", "grammar", "json_schema", "json_object"]


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must match while it is written (`dfkeval.evaluation.constraints` derives it from a
    schema).

    Attributes:
        kind: How `text` is read.
        text: A structural tag or a JSON Schema as JSON, or an EBNF grammar with the rule `root`; empty for
            json_object.
    """

    kind: ConstraintKind
    text: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a model.

    Attributes:
        id: The id of its completion.
        messages: Chat turns; their parts have the type "text" or "image".
        images: Paths or data URIs in the order of the image parts.
        videos: Paths in the order of the video parts.
        tools: Tool definitions; None for none.
        slot: Where the answer names its label, to ask for the probability of each label too; None if not
            asked.
        draw_index: Which draw of the same question this is, from 0.
        constraint: What the answer must match; None for a free answer.
        force_tool: The function that the server must call; None leaves it to the model.
        template_options: What the chat template reads besides the turns, as the row says it
            (`chat_template_kwargs`), thinking excepted.
        max_image_side: Pixels that the longer side of an image may have before it is scaled down
            (`open_image(path, max_side=...)`); None shows images as they are. Set only for backends whose
            capabilities say that they obey it.
        max_prompt_tokens: Tokens of the prompt at most, images included; a longer one is refused unasked. None for
            any.
        deadline: The reading of `time.monotonic` at which the answer is given up, written or not; None for never.
            This one and the one before are obeyed by backends whose capabilities say so.

    Example:
        >>> from dfkeval.backends import Request
        >>> Request(id="1", messages=[{"role": "user", "content": "Hello"}]).draw_index
        0
    """

    id: str
    messages: list[dict[str, Any]]
    images: tuple[str, ...] = ()
    tools: list[dict[str, Any]] | None = None
    slot: LabelSlot | None = None
    draw_index: int = 0
    constraint: Constraint | None = None
    force_tool: str | None = None
    videos: tuple[str, ...] = ()
    max_image_side: int | None = None
    template_options: dict[str, Any] = {}
    max_prompt_tokens: int | None = None
    deadline: float | None = None


def media_of(turns: Iterable[Mapping[str, Any]], videos: Sequence[Any] = ()) -> list[str]:
    """Return "video" and "audio" if parts of the turns or listed files are of that kind."""
    contents = [turn.get("content") for turn in turns]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    kinds = {part.get("type") for part in parts if isinstance(part, dict)} | ({"video"} if videos else set())
    return [kind for kind in ("video", "audio") if kind in kinds]


def refuse_unseen(request: Request, *, seen: Sequence[str] = ()) -> None:
    """Raise `DataError` for video and audio in a request that a model would not see.

    Args:
        request: The request.
        seen: The kinds that the model sees.
    """
    for kind in media_of(request.messages, request.videos):
        if kind not in seen:
            raise DataError(f"the turns hold {kind}, which cannot be asked here; leave the row out")


class Sampling(Config):
    """How text is drawn.

    Attributes:
        max_new_tokens: Limit of one answer, in tokens.
        temperature: 0 is greedy; then top_p, top_k and min_p do not matter.
        top_p: Smallest set of tokens whose probabilities sum to this share.
        top_k: Number of most likely tokens; 0 for all.
        min_p: Smallest probability of a token, as a share of the most likely one's.
        repetition_penalty: Divisor of the logits of tokens that have occurred; 1 for none.
        stop: Strings that end an answer; they stay in its text. An evaluation in which it is left out takes
            the schema's; an empty list means none.
        seed: A draw depends on the seed, its index and the question alone.
        repeats: How often each row is drawn.
        thinking: Whether the template opens a think block for the model.
        thinking_budget: Tokens of reasoning, after which the block is closed for the model; they come on top
            of `max_new_tokens`. None lets reasoning and answer share `max_new_tokens`.
        reasoning_effort: How much the model is told to think ("low", "medium", "xhigh" for Qwen3.8), for
            templates that read it; None leaves it to the rows and the template.

    Example:
        >>> from dfkeval.backends import Sampling
        >>> Sampling(temperature=0.7, repeats=4, thinking=True, thinking_budget=256).limit
        768
    """

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
    reasoning_effort: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Sampling:
        if self.repeats > 1 and self.temperature == 0:
            raise ValueError("repeats draws the same greedy answer again; set a temperature above 0")
        if self.thinking_budget is not None and not self.thinking:
            raise ValueError("thinking_budget limits reasoning; set thinking: true")
        if self.reasoning_effort is not None and not self.thinking:
            raise ValueError("reasoning_effort tells how much to reason; set thinking: true")
        return self

    def template_options(self, request: Request) -> dict[str, Any]:
        """Return what the chat template reads besides the turns and the switch for thinking."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return request.template_options | effort

    @property
    def limit(self) -> int:
        """The most tokens of reasoning and answer together."""
        return self.max_new_tokens + (self.thinking_budget or 0)


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one request, verbatim.

    Attributes:
        id: The id of its request.
        text: The generated text with its stop string, without the stop token and padding. If the prompt
            opened a think block, the text is what follows the block.
        finish_reason: "stop", "length" if the token limit was reached, "content_filter" if the server held
            the answer back or cut it, or "error".
        n_prompt_tokens: Tokens of the prompt; None if unknown.
        n_output_tokens: Tokens that were generated; None if unknown.
        error: Why there is no answer, if finish_reason is "error".
        seconds: Wall time of the request, or of its batch.
        timed_out: Whether the error was a time limit.
        refused: Whether the error lies in the question (a picture that cannot be read, too many tokens): it will not
            be answered next time either, and others are.
        restored_stop: The stop string that the server dropped and that was put back.
        server_parsed: Whether the server returned a parsed call, which the text repeats.
        label_probs: Canonical label -> its probability over the closed set
            (`dfkeval.parsing.label_confidence`); None if it was not asked for or is not known.
        reasoning: What stood in the think block that the prompt opened; None without one.
        unclosed_think: Whether that block was never closed; the text is empty then.
        thinking_cut: Whether the block was closed for the model when its budget was spent.
        first_token_seconds: Time from the start of the attempt that was answered, or of its batch, to its
            first token; None if unknown.
        cached: Whether it was taken from the response cache; `seconds` are those of the first time.
        server_calls: What the server's own parser made of the answer, [{"name", "arguments"}]; None if it
            was not asked for.
        server_source: Where `text` comes from then: "same answer", "two greedy requests", or "no raw text".

    Example:
        >>> from dfkeval.backends import Completion
        >>> Completion(id="1", text="Jakarta").finish_reason
        'stop'
    """

    id: str
    text: str
    finish_reason: FinishReason = "stop"
    n_prompt_tokens: int | None = None
    n_output_tokens: int | None = None
    error: str | None = None
    seconds: float | None = None
    timed_out: bool = False
    refused: bool = False
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
    """One graded answer.

    Attributes:
        id: The id of its request.
        group: Samples of one group are resampled together.
        outcome: One of `OUTCOMES`.
        gold: The row's answer; None if it has none.
        value: The strictly decoded answer; None unless the outcome is "ok".
        lenient: The answer after named repairs; equal to `value` if that exists.
        text: The raw answer.
        repairs: What lenient reading did, or the aliases that strict reading resolved.
        problems: What is wrong, one readable line each.
        source_text: What the answer must be grounded in; None for none.
        images: Paths or data URIs of the images that were shown.
        prompt: The question as readable text, with images as `<image>`.
        key: Hash of prompt, tools and image bytes; rows of two runs are comparable if it is equal.
        label: The answered class, of `lenient`, if the schema has one.
        label_probs: As in the completion, like finish_reason, n_prompt_tokens, n_output_tokens, seconds and
            first_token_seconds.
        draw_index: Which draw of its row this is, from 0; `repeat` in files.
        reasoning: What the model thought before it answered; None for nothing.
        gold_nll: As `Likelihood.nll`; None if it was not asked for or could not be computed.
        gold_tokens: As `Likelihood.tokens`.
        differs: Where JSON Schema and answer class disagree on the answer, in words with the place; None if
            they agree.
        slices: Short facts of the row, such as its platform, by which samples can be told apart.
    """

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
    slices: dict[str, str] = {}

    @property
    def confidence(self) -> float | None:
        """The probability of the label that was answered, in [0, 1]; None if either is not known."""
        return self.label_probs.get(self.label) if self.label_probs and self.label is not None else None

    @property
    def answered(self) -> bool:
        """Whether the model answered at all."""
        return self.outcome not in NOT_ANSWERED


class GoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A question with the answer that the row teaches; `turn` is the assistant's message."""

    request: Request
    turn: dict[str, Any]


class Likelihood(msgspec.Struct, frozen=True, kw_only=True):
    """How likely a model finds a row's gold answer.

    Attributes:
        id: The id of the request.
        nll: Negative log-likelihood in nats, summed over the answer's tokens and its stop token, given the
            prompt.
        tokens: Number of these tokens.
        error: Why there is none; `nll` and `tokens` are 0 then.
    """

    id: str
    nll: float = 0.0
    tokens: int = 0
    error: str | None = None
