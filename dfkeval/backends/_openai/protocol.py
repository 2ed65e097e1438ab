"""Write requests and read answers of the OpenAI chat protocol; no connection and no waiting here.

How it works: `dialect` says which server reads the extra parameters (constraints, budget of reasoning), and
what it ignores. What a server took away is put back if that is possible, and marked. Sources: vLLM's and
SGLang's documentation of structured outputs and reasoning outputs; `transformers serve` as it is."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from dfkdata.common import data_uri
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.files import open_regular
from dfkdata.media.images import image_traits, png_bytes
from dfkdata.rows.control_tokens import plain
from dfkdata.rows.messages import shown_tools
from dfkdata.rows.reasoning import KEY as REASONING
from dfkdata.rows.reasoning import holds_reasoning, split_reasoning
from dfkdata.rows.record import RowError
from dfkeval.backends._openai import response
from dfkeval.parsing import reasoning
from dfkeval.parsing.label_confidence import from_alternatives
from dfkeval.parsing.tags import THINK_CLOSE, TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from dfkeval.parsing.toolcall import write_tool_call
from dfkeval.types import Completion, Constraint, FinishReason, Request, Sampling, refuse_unseen

#: Alternatives for a token at most that servers of this protocol show.
_ALTERNATIVES = 20
Dialect = Literal["vllm", "sglang", "transformers", "other"]
#: Settings of `Sampling` that narrow a draw.
_NARROWING = ("top_p", "top_k", "min_p", "repetition_penalty")


def constrained(constraint: Constraint, dialect: Dialect) -> dict[str, Any]:
    """Return the parameters of a constraint. Raises `ConfigError` if the dialect has none."""
    if dialect == "transformers":
        raise ConfigError(f"a {constraint.kind}: {_IGNORES} it; use mode free, or vLLM or SGLang")
    if constraint.kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if constraint.kind == "json_schema":
        schema = {"name": "answer", "schema": json.loads(constraint.text)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if dialect == "vllm":
        return {"structured_outputs": {constraint.kind: constraint.text}}
    if dialect == "sglang" and constraint.kind == "grammar":
        return {"ebnf": constraint.text}
    if dialect == "sglang":
        return {"response_format": json.loads(constraint.text)}
    raise ConfigError(
        f"mode constrained: a {constraint.kind} has no parameter in the plain protocol; "
        "say backend.server: vllm or sglang, or use mode free"
    )


#: `transformers serve` drops what it does not know with one line in its own log.
_IGNORES = "backend.server transformers (`transformers serve`) ignores"


def refuse_ignored(request: Request, dialect: Dialect) -> None:
    """Raise `ConfigError` if a server of this dialect ignores something that a request asks for."""
    if dialect != "transformers":
        return
    if request.slot is not None:
        raise ConfigError(
            f"label probabilities: {_IGNORES} logprobs; leave confidences out, or use vLLM or SGLang"
        )
    if request.force_tool is not None:
        raise ConfigError(f"a forced tool: {_IGNORES} tool_choice; leave it to the model (auto)")


#: What the probe's answer must be; no model writes it by itself.
PROBE = "dfk-4711-dfk"


def probe(constraint: Constraint) -> Constraint:
    """Return a constraint of the same kind that allows one answer only."""
    match constraint.kind:
        case "structural_tag":
            tag = {"type": "structural_tag", "format": {"type": "const_string", "value": PROBE}}
            return Constraint(kind="structural_tag", text=json.dumps(tag))
        case "grammar":
            return Constraint(kind="grammar", text=f'root ::= "{PROBE}"\n')
        case "json_schema":
            return Constraint(kind="json_schema", text=json.dumps({"const": PROBE}))
        case "json_object":
            return constraint


def obeyed(constraint: Constraint, answer: dict[str, Any]) -> bool:
    """Return whether a checked answer is one that the probe of a constraint allows.

    Any JSON object will do for json_object, and a small model may not come to its end."""
    choice = answer["choices"][0]
    text = said(answer)
    if constraint.kind in ("structural_tag", "grammar"):
        return text.strip() == PROBE
    if constraint.kind == "json_object" and response.ended(choice["finish_reason"]) == "length":
        return re.match(r"\s*\{\s*(\"|\Z)", text) is not None
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) if constraint.kind == "json_object" else value == PROBE


def said(answer: dict[str, Any]) -> str:
    """Return the text of a checked answer."""
    return answer["choices"][0]["message"].get("content") or ""


def body(request: Request, sampling: Sampling, model: str, dialect: Dialect = "other") -> dict[str, Any]:
    """Return the JSON of one request; settings at their neutral value are left out, because some servers
    refuse them.

    Raises `DataError` for an image or a tool definition that cannot be read and for a video, `ConfigError` if
    the dialect has no parameter for what is asked."""
    refuse_unseen(request)
    request = replace(
        request, messages=plain(request.messages), tools=plain(request.tools),
        template_options=plain(request.template_options),
    )  # fmt: skip
    images = (_address(image, request.max_image_side) for image in request.images)
    payload: dict[str, Any] = {
        "model": model,
        "messages": _turns(request, images),
        "max_tokens": sampling.limit,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "chat_template_kwargs": sampling.template_options(request) | {"enable_thinking": sampling.thinking},
    }
    if sampling.temperature > 0:
        payload["seed"] = _seed(request, sampling, payload["messages"])
    payload |= _drawing(sampling, dialect)
    if request.tools:
        payload["tools"] = shown_tools(request.tools, f"row {request.id}")
        payload |= {"tool_choice": "none"} if dialect == "vllm" else {}
    if sampling.thinking_budget is not None:
        payload |= budget(sampling.thinking_budget, dialect)
    if request.constraint is not None:
        payload |= constrained(request.constraint, dialect)
    if request.force_tool is not None:
        payload["tool_choice"] = {"type": "function", "function": {"name": request.force_tool}}
    if request.slot is not None:
        payload |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    return payload


def parsed_too(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a request whose calls the server is to parse."""
    return payload | ({"tool_choice": "auto"} if payload.get("tool_choice") == "none" else {})


def _drawing(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Return how text is drawn and where it stops.

    `transformers serve` refuses most of these names, takes whether to draw at all from the model's folder, and
    fails at any stop string of a vision-language model (`no attribute 'get_vocab'`, 5.17 to 5.19): it gets
    them as its own `generation_config`, and `completion` cuts its answers."""
    if dialect == "transformers":
        own = {name: getattr(sampling, name) for name in _NARROWING}
        return {"generation_config": json.dumps(own | {"do_sample": sampling.temperature > 0})}
    neutral = Sampling()
    drawing = {name: getattr(sampling, name) for name in _NARROWING}
    drawing = {name: value for name, value in drawing.items() if value != getattr(neutral, name)}
    return drawing | ({"stop": list(sampling.stop)} if sampling.stop else {})


def _seed(request: Request, sampling: Sampling, messages: list[dict[str, Any]]) -> int:
    """Return 31 bits that depend on the seed, the number of the draw, and the question.

    With one seed for all rows, servers would draw all rows with the same noise."""
    shown = json.dumps([sampling.seed, request.draw_index, messages], sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(shown).digest()[:4], "big") >> 1


def budget(tokens: int, dialect: Dialect) -> dict[str, Any]:
    """Return the parameter that limits reasoning. Raises `ConfigError` if the dialect has none."""
    if dialect == "vllm":
        return {"thinking_token_budget": tokens}
    raise ConfigError(
        "sampling.thinking_budget: this protocol has no parameter for it; say backend.server: vllm (started "
        "with a reasoning parser), use the transformers or vllm backend, or leave the budget out"
    )


def _turns(request: Request, images: Iterator[str]) -> list[dict[str, Any]]:
    """Return the turns as the protocol has them: calls have ids, which the turns of tools name.

    Earlier reasoning stands under `reasoning_content`, where servers give it to the chat template."""
    messages, waiting = [], []
    for number, turn in enumerate(request.messages):
        content, trace = turn.get("content"), ""
        if turn["role"] == "assistant" and holds_reasoning(turn):
            content, trace = _without_reasoning(turn, request.id)
        parts = [_part(part, images) for part in content] if isinstance(content, list) else content
        message: dict[str, Any] = {"role": turn["role"], "content": parts}
        if trace:
            message[REASONING] = trace
        if turn.get("tool_calls"):
            calls = [_call(call, f"call_{number}_{at}") for at, call in enumerate(turn["tool_calls"])]
            message["tool_calls"] = calls
            waiting += [call["id"] for call in calls]
        if turn["role"] == "tool":
            answered = turn.get("tool_call_id") or next(iter(waiting), None)
            waiting = [name for name in waiting if name != answered]
            message |= {"tool_call_id": answered} if answered else {}
        messages.append(message)
    return messages


def _without_reasoning(turn: dict[str, Any], name: str) -> tuple[Any, str]:
    try:
        trace, text = split_reasoning(turn, "messages")
    except RowError as error:
        raise DataError(f"row {name}: {error.path}: {error.reason}; {error.hint}") from error
    return (text if trace else turn.get("content")), trace


def _part(part: dict[str, Any], images: Iterator[str]) -> dict[str, Any]:
    if part.get("type") != "image":
        return part
    address = next(images, None)
    if address is None:
        raise DataError("the row has more image placeholders than images")
    return {
        "type": "image_url",
        "image_url": {"url": address},
    }


def _address(image: str, max_side: int | None) -> str:
    """Return a picture as a `data:` URI: its own bytes, unless seeing it changes its pixels or it is larger.

    Servers differ in whether they turn a picture and in what they lay under it, so they get what training
    saw. Raises `DataError` for a picture that cannot be read or holds several frames."""
    traits = image_traits(image)
    if traits.changes or (max_side is not None and max(traits.width, traits.height) > max_side):
        return data_uri.encode(png_bytes(image, max_side=max_side), "image/png")
    return image if data_uri.is_data_uri(image) else file_uri(Path(image))


def _call(call: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a call as the protocol has it: its arguments are JSON text, and it has an id."""
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": name, "type": "function"} | call | {"function": function | {"arguments": text}}


def file_uri(path: Path) -> str:
    """Return the file's own bytes as a data URI. Raises `DataError` that names a file which cannot be
    read."""
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"image {path}: cannot be read ({error.strerror})") from error
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return data_uri.encode(data, kind)


def completion(
    name: str, answer: dict[str, Any], sampling: Sampling, seconds: float, dialect: Dialect = "other"
) -> Completion:
    """Return a server's answer as a completion; what the server took away is put back if that is possible."""
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    message = choice["message"]
    parsed = message.get("tool_calls") or []
    thought = thoughts(message, sampling, dialect, called=bool(parsed))
    text = thought.answer if thought is not None else message.get("content") or ""
    text += "".join(_written(call) for call in parsed)
    unclosed = thought is not None and not thought.closed
    ended = response.ended(choice["finish_reason"])
    stop = None if parsed or unclosed else missing_stop(choice, text, sampling.stop)
    if dialect == "transformers":
        stop, (text, ended) = None, _cut(text, sampling.stop, ended)
    return Completion(
        id=name,
        text=text + (stop or ""),
        finish_reason=ended,
        n_prompt_tokens=usage.get("prompt_tokens"),
        n_output_tokens=usage.get("completion_tokens"),
        seconds=seconds,
        restored_stop=stop,
        server_parsed=bool(parsed),
        reasoning=None if thought is None else thought.reasoning,
        unclosed_think=unclosed,
    )


def _cut(text: str, stops: tuple[str, ...], ended: FinishReason) -> tuple[str, FinishReason]:
    """Return an answer up to and with its first stop string, which the server was not told, and why it ended."""
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    return (text[: min(ends)], "stop") if ends else (text, ended)


def thoughts(
    message: dict[str, Any], sampling: Sampling, dialect: Dialect, *, called: bool
) -> reasoning.SplitText | None:
    """Return reasoning and answer, which a server with a reasoning parser sends apart, and others in one
    text.

    None is an answer without reasoning. A server that sends neither reasoning nor a closing tag may hide it,
    unless its dialect is known not to."""
    text = message.get("content") or ""
    apart = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(apart, str) and apart:
        return reasoning.SplitText(apart, text.removeprefix(reasoning.GAP), bool(text) or called)
    if not sampling.thinking or called:
        return None
    if THINK_CLOSE in text or (dialect != "other" and text):
        return reasoning.split_opened(text)
    return None


def label_probs(answer: dict[str, Any], request: Request) -> dict[str, float] | None:
    """Return label probabilities from the log-probabilities that the server sent; None if it sent none, or if
    they do not have the protocol's shape."""
    logprobs = answer["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if request.slot is None or not content:
        return None
    try:
        return from_alternatives([_step(step) for step in content], request.slot)
    except (KeyError, TypeError, ValueError):
        return None


def _step(step: Any) -> tuple[str, dict[str, float]]:
    """Return (token, the log-probabilities of it and its alternatives)."""
    token = str(step["token"])
    shown = (*(step.get("top_logprobs") or ()), step)
    return token, {str(entry["token"]): float(entry["logprob"]) for entry in shown}


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls that the server parsed: {"name", "arguments"}, arguments as a dict, or as they
    came."""
    return [_call_of(call.get("function") or {}) for call in message.get("tool_calls") or []]


def _call_of(function: dict[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str | None) else arguments
    except (ValueError, RecursionError):
        value = arguments
    return {"name": function.get("name"), "arguments": value}


def _written(call: dict[str, Any]) -> str:
    """Return a call that the server parsed, in the template's form; arguments that are not an object stay as
    they came."""
    function = call.get("function") or {}
    try:
        sent = function.get("arguments") or "{}"
        arguments = json.loads(sent) if isinstance(sent, str) else sent
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        return f"{TOOL_CALL_OPEN}\n{json.dumps(function, ensure_ascii=False)}\n{TOOL_CALL_CLOSE}"
    return write_tool_call(str(function.get("name", "")), arguments)


def missing_stop(choice: dict[str, Any], text: str, stops: tuple[str, ...]) -> str | None:
    """Return the stop string that ended the answer and is not in it; None if there is none, or it cannot be
    known.

    vLLM names it `stop_reason`, SGLang `matched_stop`, and null there is the end of the turn. If a server
    names nothing, an open call that stopped by itself ended at its closing tag."""
    if response.ended(choice["finish_reason"]) != "stop":
        return None
    named = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    if named:
        return str(named[0]) if named[0] in stops and not text.endswith(str(named[0])) else None
    unclosed = text.rfind(TOOL_CALL_OPEN) > text.rfind(TOOL_CALL_CLOSE)
    return TOOL_CALL_CLOSE if unclosed and TOOL_CALL_CLOSE in stops else None
