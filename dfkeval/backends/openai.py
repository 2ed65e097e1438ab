"""Any server that speaks the OpenAI chat protocol: vLLM, SGLang, llama.cpp, and hosted ones.

Strategy: one thread a request under way, their number follows the server's health (`_http`); images travel
as data URIs of the file's own bytes, tools and the think switch as the server's template expects them.
Promises: no request is lost: each ends as an answer or as a failed request with its reason; a stop string
that the server cut off is put back and recorded; the key comes from the environment and is never stored.
What server-side tool parsing returned is written back in the template's form and marked, since the model's
own bytes are gone."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace
from pydantic import Field

from dfkdata import config
from dfkdata.errors import BackendError, ConfigError, DataError, missing_package
from dfkeval.backends._http import PASSING, Limiter, Retry, Trouble, wait_of
from dfkeval.confidence import from_alternatives
from dfkeval.samples import Backend, Completion, Request, Sampling
from dfkeval.toolcall import write_tool_call

#: The most alternatives a step that servers of this protocol show.
_ALTERNATIVES = 20
_OPENER, _CLOSER = "<tool_call>", "</tool_call>"


class Config(config.Config):
    """base_urls: one or more, each ending in /v1; requests rotate. model: the name that the server knows it
    by.

    key: name of the environment variable that holds the API key, None for none. timeout: seconds of one
    attempt. attempts: per request. concurrency: requests under way at most. revision: what the server runs,
    in your words; without it answers are never taken from a cache."""

    kind: Literal["openai"] = "openai"
    base_urls: tuple[str, ...] = Field(min_length=1)
    model: str
    key: str | None = None
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    concurrency: int = Field(default=32, ge=1)
    revision: str | None = None


def start(config: Config) -> Backend:
    """Check that a server answers. Raises `ConfigError` for a key that is not set, `BackendError` when none
    answers."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise missing_package('backend "openai"', "httpx", "openai") from error
    if config.key is not None and not os.environ.get(config.key):
        raise ConfigError(f"backend.key: the environment variable {config.key} is not set")
    headers = {"Authorization": f"Bearer {os.environ[config.key]}"} if config.key else {}
    limits = httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
    client = httpx.Client(timeout=config.timeout, limits=limits, headers=headers)
    backend = OpenAI(config, client)
    backend.check()
    return backend


class OpenAI:
    """A backend around an httpx client."""

    def __init__(self, config: Config, client: Any, sleep: Any = time.sleep) -> None:
        self.config, self.client = config, client
        self.urls = [url.rstrip("/") for url in config.base_urls]
        self.limiter = Limiter(config.concurrency)
        self.retry = Retry(config.attempts, sleep)
        self.info: dict[str, Any] = {
            "kind": "openai", "model": config.model, "revision": config.revision, "servers": len(self.urls),
            "adapter": "unverified: the server says nothing about its weights",
        }  # fmt: skip

    def check(self) -> None:
        """Raises `BackendError` when no server answers at all."""
        import httpx

        faults = []
        for url in self.urls:
            try:
                self.client.get(f"{url}/models")
                return
            except httpx.HTTPError as error:
                faults.append(f"{url}: {type(error).__name__}")
        raise BackendError(f"no server answers ({'; '.join(faults)}); start it, or correct backend.base_urls")

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """One completion for each request, as they come."""
        waiting = iter(requests)
        pool = ThreadPoolExecutor(max_workers=self.config.concurrency)
        running: set[Future[Completion]] = set()
        try:
            while True:
                room = 2 * self.config.concurrency - len(running)
                running |= {pool.submit(self._ask, request, sampling) for request in islice(waiting, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _ask(self, request: Request, sampling: Sampling) -> Completion:
        """The answer, or a failed request with its reason."""
        started = time.monotonic()
        try:
            payload = body(request, sampling, self.config.model)
            answer = self.retry.run(lambda number: self._attempt(payload, number), self.limiter)
        except DataError as error:
            return _failed(request.id, str(error), started)
        except Trouble as trouble:
            return _failed(request.id, str(trouble), started, timed_out=trouble.timed_out)
        found = completion(request.id, answer, sampling, time.monotonic() - started)
        return replace(found, label_probs=label_probs(answer, request))

    def _attempt(self, payload: dict[str, Any], number: int) -> dict[str, Any]:
        """The server's answer as a dict with one choice. Raises `Trouble`."""
        import httpx

        url = self.urls[number % len(self.urls)]
        try:
            response = self.client.post(f"{url}/chat/completions", json=payload)
        except httpx.TimeoutException as error:
            raise Trouble(f"no answer in {self.config.timeout:g} s", passing=True, timed_out=True) from error
        except httpx.HTTPError as error:
            raise Trouble(f"{type(error).__name__}: {error}", passing=True) from error
        if response.status_code != 200:
            passing = response.status_code in PASSING
            text = " ".join(response.text.split())[:300]
            raise Trouble(
                f"status {response.status_code}: {text}", passing=passing, wait=wait_of(response.headers)
            )
        return _checked(response.content)


def _checked(content: bytes) -> dict[str, Any]:
    """A whole answer. Raises `Trouble` for half an answer or something else, which another attempt may
    mend."""
    try:
        found = json.loads(content)
        choice = found["choices"][0]
        if not isinstance(choice["message"], dict) or choice.get("finish_reason") is None:
            raise Trouble("the answer's choice is not finished", passing=True)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Trouble(f"the answer is not a chat completion: {content[:120]!r}", passing=True) from error
    return dict(found)


def _failed(name: str, why: str, started: float, *, timed_out: bool = False) -> Completion:
    seconds = time.monotonic() - started
    return Completion(
        id=name, text="", finish_reason="error", error=why, timed_out=timed_out, seconds=seconds
    )


def body(request: Request, sampling: Sampling, model: str) -> dict[str, Any]:
    """The JSON of one request; settings at their neutral value are left out, since some servers refuse them.

    Raises `DataError` for an image that cannot be read."""
    images = iter(request.images)
    found: dict[str, Any] = {
        "model": model,
        "messages": [_turn(turn, images) for turn in request.messages],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "chat_template_kwargs": {"enable_thinking": sampling.thinking},
    }
    neutral = Sampling()
    for name in ("top_p", "top_k", "min_p", "repetition_penalty"):
        if getattr(sampling, name) != getattr(neutral, name):
            found[name] = getattr(sampling, name)
    if sampling.stop:
        found["stop"] = list(sampling.stop)
    if request.tools:
        found["tools"] = request.tools
    if request.slot is not None:
        found |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
    return found


def _turn(turn: dict[str, Any], images: Iterator[str]) -> dict[str, Any]:
    content = turn.get("content")
    parts = [_part(part, images) for part in content] if isinstance(content, list) else content
    found = {"role": turn["role"], "content": parts}
    if turn.get("tool_calls"):
        found["tool_calls"] = [_call(call) for call in turn["tool_calls"]]
    return found


def _part(part: dict[str, Any], images: Iterator[str]) -> dict[str, Any]:
    if part.get("type") != "image":
        return part
    path = next(images, None)
    if path is None:
        raise DataError("the row has more image placeholders than images")
    return {"type": "image_url", "image_url": {"url": data_uri(Path(path))}}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments travel as JSON text in this protocol."""
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return call | {"function": function | {"arguments": text}}


def data_uri(path: Path) -> str:
    """The file's own bytes as a data URI. Raises `DataError` naming a file that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"image {path}: cannot be read ({error.strerror})") from error
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def completion(name: str, answer: dict[str, Any], sampling: Sampling, seconds: float) -> Completion:
    """A server's answer as a completion, with what the server took away put back where that is possible."""
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    message = choice["message"]
    text = message.get("content") or ""
    parsed = message.get("tool_calls") or []
    text += "".join(_written(call) for call in parsed)
    stop = None if parsed else missing_stop(choice, text, sampling.stop)
    return Completion(
        id=name,
        text=text + (stop or ""),
        finish_reason="length" if choice["finish_reason"] == "length" else "stop",
        n_prompt_tokens=usage.get("prompt_tokens"),
        n_output_tokens=usage.get("completion_tokens"),
        seconds=seconds,
        restored_stop=stop,
        server_parsed=bool(parsed),
    )


def label_probs(answer: dict[str, Any], request: Request) -> dict[str, float] | None:
    """Label probabilities out of the log-probabilities that the server sent; None where it sent none, or
    where they are not of the protocol's shape."""
    logprobs = answer["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if request.slot is None or not content:
        return None
    try:
        return from_alternatives([_step(step) for step in content], request.slot)
    except (KeyError, TypeError, ValueError):
        return None


def _step(step: Any) -> tuple[str, dict[str, float]]:
    """A token, and it with its alternatives -> log-probability."""
    token = str(step["token"])
    shown = (*(step.get("top_logprobs") or ()), step)
    return token, {str(each["token"]): float(each["logprob"]) for each in shown}


def _written(call: dict[str, Any]) -> str:
    """A call that the server parsed, in the template's form; arguments that are no object stay as they
    came."""
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"{_OPENER}\n{json.dumps(function, ensure_ascii=False)}\n{_CLOSER}"
    return write_tool_call(str(function.get("name", "")), arguments)


def missing_stop(choice: dict[str, Any], text: str, stops: tuple[str, ...]) -> str | None:
    """The stop string that ended the answer and is not in it; None when there is none, or it cannot be known.

    vLLM names it `stop_reason`, SGLang `matched_stop`, and null there is the end of the turn. Where a server
    names nothing, an open call that stopped by itself ended at its closer."""
    if choice["finish_reason"] not in ("stop", "tool_calls"):
        return None
    named = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    if named:
        return str(named[0]) if named[0] in stops and not text.endswith(str(named[0])) else None
    unclosed = text.rfind(_OPENER) > text.rfind(_CLOSER)
    return _CLOSER if unclosed and _CLOSER in stops else None
