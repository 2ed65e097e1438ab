"""Ask any server that speaks the OpenAI chat protocol: vLLM, SGLang, llama.cpp, and hosted ones.

How it works: each request under way has a thread. Which server it goes to, and how many may be under way,
follows the servers' health (`retry`). Images travel as data URIs of the file's own bytes, tools and the think
switch as the server's template expects them (`protocol`). A call that the server parsed is written back in
the template's form and marked, because the model's own bytes are gone; `tool_parsing: compare` asks for them
too.

Guarantees:
- Each request ends as an answer or as a failed request with its reason.
- A stop string that the server cut off is put back and recorded.
- A run in which every other request would fail alike ends with one error, and what was answered is kept.
- The key comes from the environment and is never stored.
- A server that ignores a constraint is found out before it is asked anything."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, Literal

import msgspec
from msgspec.structs import replace
from pydantic import Field, field_validator

from dfkdata.common import config
from dfkdata.common.credentials import address, is_variable
from dfkdata.common.errors import BackendError, ConfigError, DataError
from dfkeval.backends._contract import Backend, Capabilities
from dfkeval.backends._openai import connection, deadline, errors, protocol
from dfkeval.backends._openai import response as _answer
from dfkeval.backends._openai import stream as _stream
from dfkeval.backends._openai.adapter_probe import AdapterProbe, ProbeSettings, parent_of
from dfkeval.backends._openai.protocol import Dialect, body, completion, label_probs
from dfkeval.backends._openai.retry import RequestFailed, Retry, Servers, late, spent, wait_of
from dfkeval.backends._openai.stream import Reply
from dfkeval.models.identity import AnswerIdentity
from dfkeval.parsing.tags import TOOL_CALL_OPEN
from dfkeval.types import Completion, Constraint, Request, Sampling

__all__ = ["Config", "OpenAI", "body", "check", "completion", "label_probs", "start"]

#: Seconds that the requests under way get when the run ends.
LAST_SECONDS = 5.0
CAPABILITIES = Capabilities(
    constrained=True, remote=True, parallel=True, cacheable=True, scales_images=True, limits_requests=True
)


class Config(config.Config):
    """What users write under `backend:`.

    Args:
        base_urls: Addresses of the servers, each ending in /v1; requests are shared between them.
        model: The name that the servers know the model by.
        server: What they are, for parameters beyond the protocol (constraints, a budget of reasoning).
        key: Name of the environment variable that holds the API key; None for no key.
        timeout: Seconds of one attempt, from connecting to the last byte.
        attempts: Attempts for each request.
        concurrency: Requests under way at most, at all servers.
        revision: What the servers run, in your words; without it answers are never taken from a cache.
        tool_parsing: "compare" keeps the calls that the server parsed beside the raw text, from a second
            greedy request if that is needed.
        stream: Whether answers are streamed, which shows the time to the first token; the answers are the
            same.
        probe: How the effect of the servers' adapter is shown: the first rows are asked of its base too.
    """

    kind: Literal["openai"] = "openai"
    base_urls: tuple[str, ...] = Field(min_length=1)
    model: str
    server: Dialect = "other"
    key: str | None = None
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    concurrency: int = Field(default=32, ge=1)
    revision: str | None = None
    tool_parsing: Literal["off", "compare"] = "off"
    stream: bool = False
    probe: ProbeSettings = ProbeSettings()

    @field_validator("key")
    @classmethod
    def _names_a_variable(cls, key: str | None) -> str | None:
        if key is not None and not is_variable(key):
            raise ValueError(
                "write the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
            )
        return key


def check(config: Config, sampling: Sampling, constraint: Constraint | None) -> None:
    """Raise `ConfigError` if these servers have no parameter for what is asked."""
    if constraint is not None:
        protocol.constrained(constraint, config.server)
    if sampling.thinking_budget is not None:
        protocol.budget(sampling.thinking_budget, config.server)
    if config.tool_parsing == "compare" and sampling.temperature > 0:
        raise ConfigError(
            "backend.tool_parsing: compare needs two equal answers; set sampling.temperature: 0"
        )


def start(config: Config) -> Backend:
    """Check that a server answers. Raises `ConfigError` if the key is not set, `BackendError` if no server
    answers."""
    client = connection.client(config.base_urls, config.key, config.timeout, config.concurrency)
    backend = OpenAI(config, client)
    backend.check()
    return backend


class OpenAI:
    """A backend around an httpx client.

    Attributes:
        identity: What the user says that the servers run.
    """

    capabilities = CAPABILITIES
    listen: Callable[[str], None] | None = None

    def __init__(self, config: Config, client: Any, sleep: Any = None) -> None:
        self.config, self.client = config, client
        self.urls = [url.rstrip("/") for url in config.base_urls]
        self.servers = Servers(len(self.urls), config.concurrency)
        self.retry = Retry(config.attempts, sleep)
        self.info: dict[str, Any] = {
            "kind": "openai", "model": config.model, "revision": config.revision, "servers": len(self.urls),
            "adapter": "unverified: the server says nothing about its weights",
        }  # fmt: skip
        self.identity = AnswerIdentity.of({**self.info, "server": config.server})
        self.adapter_probe = None if config.probe.base is None else self._probe_against(config.probe.base)

    def check(self) -> None:
        """Raise `BackendError` if no server answers at all, or if one refuses the key."""
        import httpx

        faults = []
        for url in self.urls:
            try:
                place, began, most = connection.place(url, "models"), time.monotonic(), self.config.timeout
                with deadline.within(most), self.client.stream("GET", place) as listed:
                    content = b"".join(self._parts(listed, began, most))
            except (httpx.HTTPError, RequestFailed) as error:
                faults.append(
                    f"{address(url)}{connection.through(url)}: {type(error).__name__} {error}".strip()
                )
                continue
            refused = errors.of_status(listed.status_code, content, None)
            if listed.status_code >= 400 and refused.ends_run == errors.SET_KEY:
                raise BackendError(f"{address(url)}: {refused}; {refused.ends_run}")
            base = parent_of(_answer.read(content), self.config.model)
            if self.adapter_probe is None and base is not None:
                self.adapter_probe = self._probe_against(base)
            return
        raise BackendError(f"no server answers ({'; '.join(faults)}); start it, or correct backend.base_urls")

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield one completion for each request, as they come.

        Raises:
            ConfigError: A server ignores a constraint.
            BackendError: Every other request would fail like the last one (the account is spent, the model is
                not known, no server takes connections). What was answered by then has been yielded.
        """
        waiting = self._adapter_probed(self._probed(requests, sampling), sampling)
        pool = ThreadPoolExecutor(max_workers=self.config.concurrency)
        running: set[Future[Completion]] = set()
        ended = threading.Event()
        fault: BackendError | None = None
        try:
            while fault is None:
                room = 2 * self.config.concurrency - len(running)
                running |= {
                    pool.submit(self._ask, request, sampling, ended) for request in islice(waiting, room)
                }
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        yield future.result()
                    except BackendError as error:
                        fault = error
            yield from self._last_answers(running, ended)
            raise fault
        finally:
            self._end(ended)
            pool.shutdown(wait=False, cancel_futures=True)

    def _end(self, ended: threading.Event) -> None:
        """Let no request of a run be tried again."""
        ended.set()
        self.servers.wake()

    def _last_answers(self, running: set[Future[Completion]], ended: threading.Event) -> Iterator[Completion]:
        """Yield the answers of the requests that are under way when the run ends."""
        self._end(ended)
        under_way = {future for future in running if not future.cancel()}
        for future in wait(under_way, timeout=LAST_SECONDS).done:
            if future.exception() is None and future.result().error is None:
                yield future.result()

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """Return the hash of the whole JSON of the request, pictures included."""
        payload = body(request, sampling, self.config.model, self.config.server)
        text = msgspec.json.encode((payload, self.config.tool_parsing), order="sorted")
        return {"request_sha256": hashlib.sha256(text).hexdigest()}

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _probe_against(self, base: str) -> AdapterProbe:
        def send(payload: dict[str, Any]) -> dict[str, Any]:
            reply: Reply = self.retry.run(lambda server: self._attempt(payload, server), self.servers)
            return reply.answer

        return AdapterProbe(self.config.model, base, self.config.server, send, self.config.probe)

    def _adapter_probed(self, requests: Iterator[Request], sampling: Sampling) -> Iterator[Request]:
        """Yield the requests; the first ones are asked of the base too, if it has a name."""
        if self.adapter_probe is not None and self.adapter_probe.wanted:
            first = self.adapter_probe.first(requests, sampling)
            self.info["adapter"] = self.adapter_probe.verdict()
            yield from first
        yield from requests

    def _probed(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Request]:
        """Yield the requests; each new kind of constraint is tried at every server first.

        Raises `ConfigError` for what the servers ignore."""
        tried: set[str] = set()
        for request in requests:
            protocol.refuse_ignored(request, self.config.server)
            if request.constraint is not None and request.constraint.kind not in tried:
                tried.add(request.constraint.kind)
                self._probe(request.constraint)
            yield request

    def _probe(self, constraint: Constraint) -> None:
        """Raise `ConfigError` if a server refuses or ignores this kind of constraint, `BackendError` if it
        does not answer."""
        parts = [{"type": "text", "text": "Say hello."}]
        only = protocol.probe(constraint)
        request = Request(id="probe", messages=[{"role": "user", "content": parts}], constraint=only)
        payload = body(request, Sampling(max_new_tokens=64), self.config.model, self.config.server)
        for number, url in enumerate(self.urls):
            try:
                reply: Reply = self.retry.run(partial(self._probe_attempt, payload, number), Servers(1, 1))
            except RequestFailed as failure:
                if failure.retryable or failure.ends_run:
                    way_out = failure.ends_run or "start it, or leave it out"
                    raise BackendError(f"{address(url)}: {failure}; {way_out}") from failure
                raise ConfigError(
                    f"{address(url)}: refuses the {constraint.kind} of this mode: {failure}"
                ) from failure
            if not protocol.obeyed(constraint, reply.answer):
                raise ConfigError(
                    f"{address(url)}: ignores the {constraint.kind} of this mode (asked for one fixed answer, it said "
                    f"{protocol.said(reply.answer)[:60]!r}); correct backend.server, or use mode free"
                )

    def _probe_attempt(self, payload: dict[str, Any], server: int, _: int) -> Reply:
        return self._attempt(payload, server)

    def _ask(self, request: Request, sampling: Sampling, ended: threading.Event) -> Completion:
        """Return the answer, or a failed request with its reason. Raises `BackendError` if every other
        request would fail alike."""
        started = time.monotonic()
        try:
            payload = body(request, sampling, self.config.model, self.config.server)
            compared = self.config.tool_parsing == "compare" and bool(request.tools)
            reply = self._tried(
                protocol.parsed_too(payload) if compared else payload, ended, request.deadline
            )
            if compared:
                return self._both(request, sampling, payload, reply, started, ended)
        except DataError as error:
            return _failed(request.id, str(error), started, refused=True)
        except RequestFailed as failure:
            if failure.ends_run:
                raise BackendError(f"{failure}; {failure.ends_run}") from failure
            if failure.filtered:
                seconds = time.monotonic() - started
                return Completion(id=request.id, text="", finish_reason="content_filter", seconds=seconds)
            return _failed(
                request.id, str(failure), started, timed_out=failure.timed_out, refused=failure.of_question
            )
        answer = self._completion(request, sampling, reply, started)
        return replace(answer, label_probs=label_probs(reply.answer, request))

    def _tried(self, payload: dict[str, Any], ended: threading.Event, until: float | None) -> Reply:
        sent = payload | _stream.STREAM_OPTIONS if self.config.stream else payload
        reply: Reply = self.retry.run(
            lambda server: self._attempt(sent, server, until), self.servers, ended, until
        )
        return reply

    def _completion(self, request: Request, sampling: Sampling, reply: Reply, started: float) -> Completion:
        seconds = time.monotonic() - started
        answer = completion(request.id, reply.answer, sampling, seconds, self.config.server)
        return replace(answer, first_token_seconds=reply.first)

    def _both(
        self, request: Request, sampling: Sampling, payload: dict[str, Any], reply: Reply, started: float,
        ended: threading.Event,
    ) -> Completion:  # fmt: skip
        """Return the raw text, and beside it the calls that the server parsed.

        If the server gives only the calls, the raw text is that of a second request that forbids them, and
        counts only if its prompt was as long."""
        choice = reply.answer["choices"][0]
        message = choice["message"]
        calls = protocol.calls_of(message)
        if not calls or TOOL_CALL_OPEN in (message.get("content") or ""):
            bare = reply.answer | {"choices": [choice | {"message": message | {"tool_calls": None}}]}
            answer = self._completion(request, sampling, reply._replace(answer=bare), started)
            return replace(answer, server_calls=calls, server_source="same answer")
        second = self._tried(payload | {"tool_choice": "none"}, ended, request.deadline)
        raw = self._completion(request, sampling, second, started)
        answer = self._completion(request, sampling, reply, started)
        if raw.n_prompt_tokens != answer.n_prompt_tokens or raw.server_parsed:
            return replace(answer, server_calls=calls, server_source="no raw text")
        return replace(raw, server_calls=calls, server_source="two greedy requests")

    def _attempt(self, payload: dict[str, Any], server: int, until: float | None = None) -> Reply:
        """Return one server's answer. Raises `RequestFailed`."""
        import httpx

        began = time.monotonic()
        seconds = self.config.timeout if until is None else min(self.config.timeout, until - began)
        if seconds <= 0:
            raise RequestFailed("the time was up before it was asked", retryable=False, timed_out=True)
        try:
            with (
                deadline.within(seconds),
                self.client.stream(
                    "POST", connection.place(self.urls[server], "chat/completions"), json=payload
                ) as response,
            ):
                reply = self._reply(response, began, seconds)
        except httpx.TimeoutException as error:
            raise late(seconds) from error
        except httpx.ConnectError as error:
            reason = f"{address(self.urls[server])}: {type(error).__name__}: {error}"
            raise RequestFailed(reason, retryable=True, refused=True) from error
        except httpx.HTTPError as error:
            raise RequestFailed(f"{type(error).__name__}: {error}", retryable=True) from error
        if (pause := spent(response.headers)) is not None:
            self.servers.pause(server, pause)
        return reply

    def _reply(self, response: Any, began: float, seconds: float) -> Reply:
        """Read a response, streamed or whole. Raises `RequestFailed`."""
        parts = self._parts(response, began, seconds)
        if response.is_redirect:
            where = response.headers.get("location")
            raise RequestFailed(
                f"status {response.status_code}: sent on to {where}",
                retryable=False,
                ends_run=errors.GO_THERE,
            )
        if response.status_code != 200:
            raise errors.of_status(response.status_code, b"".join(parts), wait_of(response.headers))
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            return _stream.read(parts, lambda: time.monotonic() - began, self.listen)
        return Reply(_answer.checked(b"".join(parts)))

    def _parts(self, response: Any, began: float, seconds: float) -> Iterator[bytes]:
        """Yield the body as it comes, unpacked. Raises `RequestFailed` if it is too large or takes too
        long."""
        size, packing = 0, response.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("", "identity", *connection.PACKINGS):
            raise RequestFailed(
                f"the answer is packed as {packing!r:.60}, which was not asked for", retryable=False
            )
        for part in response.iter_bytes():
            size += len(part)
            if size > _answer.MOST:
                raise RequestFailed(f"the answer is larger than {_answer.MOST >> 20} MiB", retryable=False)
            if time.monotonic() - began > seconds:
                raise late(seconds)
            yield part


def _failed(
    name: str, reason: str, started: float, *, timed_out: bool = False, refused: bool = False
) -> Completion:
    seconds = time.monotonic() - started
    return Completion(
        id=name, text="", finish_reason="error", error=reason, timed_out=timed_out, refused=refused,
        seconds=seconds,
    )  # fmt: skip
