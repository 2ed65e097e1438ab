"""Render a row as the text that the model's own template makes of it: the prompt, and the answer with its
stop token.

Training learns from the answer and evaluation measures its likelihood, so both cut it here.

How it works: the conversation is rendered twice, once up to the answer with the generation prompt and once
whole. The first text is what inference shows the model, token for token; the rest of the second is the
answer. No marker string is searched for in user text. A row whose two texts do not fit together is a
`DataError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from dfkdata.common.errors import DataError
from dfkdata.rows.control_tokens import plain
from dfkdata.rows.filled_nulls import without_filled_nulls
from dfkdata.rows.messages import shown_tools
from dfkdata.rows.reasoning import KEY, SPELLINGS, holds_reasoning, split_reasoning, think_block
from dfkdata.rows.record import RowError
from dfkeval.models.loading import foreign_files
from dfkeval.parsing.tags import ANSWER_TAGS, IM_END, THINK_CLOSE, THINK_OPEN

_EMPTY_THINK = re.compile(rf"(?:{THINK_OPEN})?\s*{THINK_CLOSE}\s*")
_OPEN_THINK = re.compile(rf"{THINK_OPEN}\s*$")
_CLOSED_EMPTY_THINK = re.compile(rf"{THINK_OPEN}\s*{THINK_CLOSE}\s*$")


#: The option that turns thinking on in templates that have both.
THINKING = "enable_thinking"


@dataclass(frozen=True)
class RenderedSample:
    """A rendered row, in four parts.

    Args:
        prompt: What inference shows the model.
        empty_think: An empty think block, which is not scored.
        answer: What is scored; ends with the stop token.
        suffix: What the template writes after it, which is not scored.
    """

    prompt: str
    empty_think: str
    answer: str
    suffix: str


def render_sample(row: dict[str, Any], processor: Any) -> RenderedSample:
    """Render a row and cut it at its last assistant turn.

    Args:
        row: A training row: `id`, `messages`, and optionally `tools` and `chat_template_kwargs`.
        processor: A processor or a tokenizer with a chat template.

    Raises:
        DataError: The template renders the prompt differently once the answer follows, does not end the
            answer with the stop token, or the answer is empty.
    """
    messages = row["messages"]
    _check_thinking(row)
    prompt = render(processor, row, messages[:-1], generation_prompt=True)
    whole = render(processor, row, messages, generation_prompt=False)
    empty_think, written = _split(prompt, whole, row["id"])
    answer, suffix = _stop(written, processor, row["id"])
    _check_trace(row, prompt, answer)
    return RenderedSample(prompt, empty_think, answer, suffix)


def thinks(row: dict[str, Any]) -> bool:
    """Return whether a row is asked with thinking on: it says so, or its last turn holds reasoning.

    Args:
        row: A training row. `reasoning_effort` in its `chat_template_kwargs` asks for thinking, too.

    Raises:
        DataError: The reasoning of the last turn cannot be read.
    """
    options = template_options(row)
    if THINKING in options:
        return bool(options[THINKING])
    return "reasoning_effort" in options or bool(_trace(row))


def template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says to the chat template; nulls, which columnar loaders fill in, say nothing.

    Raises:
        DataError: It is no mapping of names to values.
    """
    options = row.get("chat_template_kwargs")
    if options is not None and not isinstance(options, Mapping):
        raise DataError(
            f"row {row['id']}: chat_template_kwargs: {options!r:.80} is no mapping of names to values"
        )
    return {name: value for name, value in (options or {}).items() if value is not None}


def asked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return options of a row without the switch for thinking, which the sampling sets for all rows."""
    return {name: value for name, value in (options or {}).items() if name != THINKING}


def _trace(row: dict[str, Any]) -> str:
    """Return the reasoning of the last turn, "" if it has none or is not the assistant's."""
    turn = row["messages"][-1] if row["messages"] else {}
    if turn.get("role") != "assistant" or not holds_reasoning(turn):
        return ""
    return _split_turn(turn, row)[0]


def _split_turn(turn: dict[str, Any], row: dict[str, Any]) -> tuple[str, str]:
    try:
        return split_reasoning(turn, "messages")
    except RowError as error:
        raise DataError(f"row {row['id']}: {error.path}: {error.reason}; {error.hint}") from error


def _check_thinking(row: dict[str, Any]) -> None:
    if _trace(row) and not thinks(row):
        raise DataError(
            f"row {row['id']}: the last turn holds reasoning, and enable_thinking is false, under which the "
            "model is asked without; leave out one of them"
        )


def _check_trace(row: dict[str, Any], prompt: str, answer: str) -> None:
    """Raise `DataError` unless the answer holds the last turn's reasoning in the one think block that is open."""
    if not (trace := _trace(row)):
        return
    opened = _OPEN_THINK.search(prompt) is not None
    thoughts, closed, _ = answer.partition(THINK_CLOSE)
    if not closed or thoughts.count(THINK_OPEN) != (not opened) or trace not in thoughts:
        raise DataError(
            f"row {row['id']}: the chat template does not write the last turn's reasoning as one think block; "
            "give a template that does, or leave the reasoning out"
        )


def _split(prompt: str, whole: str, row_id: str) -> tuple[str, str]:
    """Return (empty think block, answer and suffix): what follows the prompt in `whole`."""
    if whole.startswith(prompt):
        written = whole[len(prompt) :]
        block = _EMPTY_THINK.match(written)
        if block and (THINK_OPEN in block[0] or _OPEN_THINK.search(prompt)):
            return block[0], written[block.end() :]
        return "", written
    if closed := _CLOSED_EMPTY_THINK.search(prompt):
        # The template writes the empty block into the generation prompt only.
        start = prompt[: closed.start()]
        if whole.startswith(start):
            return "", whole[len(start) :]
    if opened := _OPEN_THINK.search(prompt):
        # A thinking prompt and an answer without a trace: the block is closed at once, without loss.
        start = prompt[: opened.start()]
        if whole.startswith(start):
            return f"\n{THINK_CLOSE}\n\n", whole[len(start) :]
    raise DataError(
        f"row {row_id}: the chat template renders the prompt differently once the answer follows, so "
        f"training and inference would disagree; "
        f"give a template whose generation prompt begins the whole conversation"
    )


def _stop(written: str, processor: Any, row_id: str) -> tuple[str, str]:
    stop = stop_token(processor)
    answer, stop_found, suffix = written.rpartition(stop)
    if not stop_found:
        raise DataError(f"row {row_id}: the template does not end the answer with the stop token {stop!r}")
    if not answer.strip():
        raise DataError(
            f"row {row_id}: the last answer is empty, so no token but the stop token would carry loss"
        )
    return answer + stop, suffix


def reads(processor: Any, option: str) -> bool:
    """Return whether the chat template of a processor or tokenizer reads an option."""
    return re.search(rf"\b{re.escape(option)}\b", chat_template(processor)) is not None


def stop_token(processor: Any) -> str:
    """Return the text of the token that ends a turn: <|im_end|> if the vocabulary has it, else the
    end-of-text token."""
    tokenizer = getattr(processor, "tokenizer", processor)
    return IM_END if IM_END in tokenizer.get_added_vocab() else str(tokenizer.eos_token)


def render(
    processor: Any, row: dict[str, Any], messages: list[dict[str, Any]], *, generation_prompt: bool
) -> str:
    """Return turns as text, by the processor's own template; thinking is off unless the row turns it on.

    Args:
        processor: A processor or a tokenizer with a chat template.
        row: The row, for its `tools` and `chat_template_kwargs`.
        messages: The turns.
        generation_prompt: Whether the text ends where the model is to answer.

    Raises:
        DataError: The template does not read an option of the row, or refuses its turns, or a tool's definition cannot
            be read.
    """
    tokenizer_only = not hasattr(processor, "tokenizer")
    template = chat_template(processor)
    options = template_options(row)
    unknown = [name for name in options if not reads(processor, name)]
    if unknown:
        raise DataError(f"row {row['id']}: the chat template does not read {', '.join(unknown)}")
    if THINKING in template:
        options.setdefault(THINKING, thinks(row))
    tools = shown_tools(row.get("tools"), f"row {row['id']}")
    turns, _ = without_filled_nulls(_with_reasoning(messages, row, template), tools)
    special = _special_tokens(getattr(processor, "tokenizer", processor))
    turns = [
        plain(turn, special - ANSWER_TAGS if turn.get("role") == "assistant" else special) for turn in turns
    ]
    tools, options = plain(tools, special), plain(options, special)
    with foreign_files(f"row {row['id']}: the chat template refuses it", DataError):
        text: str = processor.apply_chat_template(
            [_plain(turn) if tokenizer_only else _without_none(turn) for turn in turns],
            tools=tools,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            **options,
        )
    return text


_known: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def _special_tokens(tokenizer: Any) -> frozenset[str]:
    """Return the tokens that a tokenizer obeys wherever they stand in a text."""
    if tokenizer not in _known:
        added = tokenizer.added_tokens_decoder.values()
        _known[tokenizer] = frozenset(token.content for token in added if token.special)
    return _known[tokenizer]


def _with_reasoning(
    messages: list[dict[str, Any]], row: dict[str, Any], template: str
) -> list[dict[str, Any]]:
    """Return turns whose reasoning stands once, where the template reads it.

    A template that reads no `reasoning_content` gets it as text of the turns after the last question, as thinking
    templates show it. An empty think block in the text is left to a template that writes none itself."""
    if not any(turn["role"] == "assistant" and holds_reasoning(turn) for turn in messages):
        return messages
    reads, writes = KEY in template, THINK_CLOSE in template
    asked = max((at for at, turn in enumerate(messages) if turn["role"] == "user"), default=-1)
    turns = []
    for at, turn in enumerate(messages):
        if turn["role"] == "assistant" and holds_reasoning(turn):
            trace, text = _split_turn(turn, row)
            if not trace and not writes:
                turns.append(turn)
                continue
            bare = {key: value for key, value in turn.items() if key not in SPELLINGS}
            if reads and trace:
                bare[KEY] = turn[KEY] if isinstance(turn.get(KEY), str) and turn[KEY].strip() else trace
            elif at > asked:
                text = think_block(trace) + text
            turn = bare | ({"content": _same_shape(turn.get("content"), text)})
        turns.append(turn)
    return turns


def _same_shape(content: Any, text: str) -> Any:
    """Return `text` as content of the shape that `content` has."""
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content if isinstance(part, dict)):
            return content  # media beside the answer, which holds no block
        return [{"type": "text", "text": text}] if text else []
    return text if text or content is not None else content


def chat_template(processor: Any) -> str:
    """Return the chat template of a processor or tokenizer. Raises `DataError` if it has none."""
    template = processor.chat_template or getattr(
        getattr(processor, "tokenizer", None), "chat_template", None
    )
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise DataError("the processor has no chat template; name one with model.chat_template")
    return str(template)


def _without_none(turn: dict[str, Any]) -> dict[str, Any]:
    """Return the turn without the keys of its parts that hold None, which columnar loaders fill in.

    Templates test for the key alone, so a text with `image: None` would be rendered as an image."""
    content = turn.get("content")
    if not isinstance(content, list):
        return dict(turn)
    parts = [{key: value for key, value in part.items() if value is not None} for part in content]
    return turn | {"content": parts}


def _plain(turn: dict[str, Any]) -> dict[str, Any]:
    """Return the turn with its text parts joined, because text-only templates expect a string."""
    content = turn.get("content")
    if not isinstance(content, list):
        return dict(turn)
    if any(part.get("type") != "text" for part in content):
        raise DataError("a causal language model cannot see images; use model.kind: vlm or modality: text")
    return turn | {"content": "".join(part["text"] for part in content)}
