"""Ask a teacher model for the structure of a caption, and turn its answer into a training row.

How it works: the teacher is asked with a prompt of its own (strict: only what the caption says; enhance:
style and mood may be inferred) and made to call the tool, a server by its `tool_choice`, a local engine by a
grammar. A row is written with the schema's system text, which the student will be asked with.

Guarantees:
- Only a strictly valid answer that every validator accepts becomes a row; nothing is repaired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dfkdata import schemas
from dfkdata.common.errors import ConfigError
from dfkdata.rows.messages import answer_turn, prompt
from dfkdata.rows.record import Record, Scaffold
from dfkdata.schemas import ToolForm
from dfkeval.backends import Backend
from dfkeval.evaluation import constraints
from dfkeval.evaluation.grading import EvalItem, prompt_text
from dfkeval.evaluation.rows import scaffolded_turns
from dfkeval.inference.labelling.budget import Prices
from dfkeval.inference.labelling.files import Rejected
from dfkeval.inference.predictor import default_sampling
from dfkeval.models.identity import AnswerIdentity
from dfkeval.types import Constraint, Request, Sample, Sampling
from dfkeval.validators import build

PromptStyle = Literal["strict", "enhance"]
ToolChoice = Literal["forced", "auto"]

_LITERAL = (
    "You turn image captions into data. Call the tool exactly once. Say what the caption says, in its own "
    "words: every subject with the attributes that the caption gives it, every action or relation as a short "
    "phrase with its participants, and the setting only if the caption tells it. Add nothing, infer nothing, "
    "rename nothing; leave a slot empty rather than guess."
)
#: How the teacher is asked, and the schema that it answers in.
PROMPTS: dict[PromptStyle, tuple[str, str]] = {
    "strict": ("caption", _LITERAL),
    "enhance": (
        "caption_enhance",
        f"{_LITERAL} Two slots are an exception: style and mood may be inferred from the caption, in a few "
        "words; leave them null where nothing hints at them.",
    ),
}
DEFAULT_VALIDATORS: dict[str, dict[str, Any]] = {"schema_valid": {}, "grounding": {"minimum": 1.0}}


class Labeller:
    """A teacher, its prompt and the validators of its answers.

    Args:
        backend: What answers.
        prompt: "strict" or "enhance".
        schema: Another schema with a tool than the prompt's.
        validators: Validator -> its options; None takes `DEFAULT_VALIDATORS`.
        tool_choice: "forced" makes the teacher call the tool, "auto" only shows it.
        sampling: How text is drawn; None takes the schema's default.
        prices: Prices of tokens.

    Raises:
        ConfigError: The arguments do not fit together.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        prompt: PromptStyle = "strict",
        schema: str | None = None,
        validators: Mapping[str, Mapping[str, Any]] | None = None,
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
        self.validators = dict(DEFAULT_VALIDATORS if validators is None else validators)
        self.accept = build(self.validators, self.schema.name)
        self.backend, self.prompt, self.tool_choice = backend, prompt, tool_choice
        self.constraint = self._constraint()
        self.sampling = sampling if sampling is not None else default_sampling(self.schema)
        self.prices = prices or Prices()

    def _constraint(self) -> Constraint | None:
        """Return the grammar that forces the call if no server does. Raises `ConfigError` if nothing can."""
        if self.tool_choice == "auto" or self.backend.capabilities.remote:
            return None
        if not self.backend.capabilities.constrained:
            kind = self.backend.info.get("kind")
            raise ConfigError(
                f"label: backend {kind!r} cannot be made to call the tool; use --tool-choice auto"
            )
        return constraints.constraint(self.schema, "constrained")

    def item(self, record: Record) -> EvalItem:
        """Return what the teacher is asked for one row."""
        messages = scaffolded_turns(
            prompt(record, self.schema), Scaffold(self.system, self.schema.tools or [])
        )
        forced = self.tool if self.tool_choice == "forced" and self.backend.capabilities.remote else None
        request = Request(
            id=record.id, messages=messages, images=record.images, tools=self.schema.tools,
            constraint=self.constraint, force_tool=forced,
        )  # fmt: skip
        source = record.meta.get("text")
        source_text = source if isinstance(source, str) else None
        return EvalItem(request, record.group, None, source_text, prompt_text(messages), "")

    def meta(self, sample: Sample, accepted: bool) -> dict[str, Any]:
        """Return the accounting of one answer."""
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
        """Return the task_1 row of an accepted answer: texts as strings, null slots left out."""
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

    def outcome(self, record: Record, sample: Sample) -> dict[str, Any] | Rejected:
        """Return the task_1 row of an answer that every validator accepts, else a reject with the reason."""
        reason = self.accept(sample) if sample.answered else f"{sample.outcome}: {sample.problems[0]}"
        if reason is None and sample.value is not None:
            return self.row(record, sample)
        return Rejected(
            id=record.id,
            outcome=sample.outcome,
            reason=reason or "schema_valid: the answer is valid only after repairs",
            source=record.source,
            caption=sample.source_text or "",
            text=sample.text,
            meta=self.meta(sample, reason is None) if sample.answered else {},
        )

    def record(self) -> dict[str, Any]:
        """Return what decides the labels in a folder; another labeller cannot go on there."""
        return {
            "schema": self.schema.name,
            "prompt": self.prompt,
            "system": self.system,
            "tool_choice": self.tool_choice,
            "validators": self.validators,
            "sampling": self.sampling.model_dump(mode="json"),
            "backend": AnswerIdentity.of(self.backend.info).for_resume(),
        }


def _plain(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn of text alone with its text as content, as in published task_1 files."""
    if any(part["type"] != "text" for part in turn["content"]):
        return turn
    return turn | {"content": "".join(part["text"] for part in turn["content"])}
