"""Build the ASGI application: routes, statuses, health and metrics.

    POST /predict   {"fields": {…}, "images": [base64]} -> {"outcome", "value", "problems", …}
    GET  /schema    what may be sent, and what comes back
    GET  /healthz   200 while the engine answers, 503 after it failed and while it is stuck
    GET  /metrics   counts, times and tokens in Prometheus' text form
    GET  /openapi.json   all of this as an OpenAPI document

The status is 200 for every answer of the model, also for one that is not valid: `outcome` says so, and
`value` is then null. 400, 408, 413, 415 and 422 are faults of the request, 401 a missing token, 503 a full
queue or a stuck engine, 502 a backend that failed, 504 a time limit. Every refusal is
{"error": {"code", "message"}}. What a caller asks wrongly is never a 5xx and no trouble of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dfkdata.common.hosts import host_of
from dfkdata.rows.record import Record
from dfkeval.inference.backend_options import adapter_verdict
from dfkeval.inference.batch import Prediction, prediction_of
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving import openapi
from dfkeval.inference.serving.batching import Batcher
from dfkeval.inference.serving.limits import Limits, Refusal
from dfkeval.inference.serving.request_body import RequestReader

#: Bytes of a body that is read in a thread, so that it holds up nobody.
LARGE = 1 << 16


class Service:
    """One predictor behind one queue, with its own metrics.

    Args:
        predictor: What answers.
        limits: What a caller may ask for.
        token: Bearer token that callers must send; None for no token.
        hosts: Names that the Host header may say; none for any.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, token: str | None = None, hosts: Sequence[str] = ()
    ) -> None:
        self.predictor, self.limits, self.token = predictor, limits, token
        self.hosts = frozenset(name.lower() for name in hosts)
        self.document = openapi.document(predictor, limits, token=token is not None)
        self.reader = RequestReader(predictor, limits)
        self.readers = ThreadPoolExecutor(2, thread_name_prefix="reader")
        self.batcher = Batcher(predictor, limits)
        self.registry = CollectorRegistry()
        self.requests = self._counter("dfkeval_requests", "Requests to /predict by status.", "status")
        self.outcomes = self._counter("dfkeval_outcomes", "Answers by outcome.", "outcome")
        self.tokens = self._counter("dfkeval_tokens", "Tokens of prompts and answers.", "kind")
        self.seconds = Histogram(
            "dfkeval_seconds", "From a read request to its answer.", registry=self.registry
        )
        held = Gauge("dfkeval_held", "Requests that wait or are being answered.", registry=self.registry)
        held.set_function(lambda: self.batcher.held)

    def _counter(self, name: str, what: str, label: str) -> Counter:
        return Counter(name, what, [label], registry=self.registry)

    async def predict(self, request: Request) -> Response:
        """Answer one question."""
        response = await self._predict(request)
        self.requests.labels(str(response.status_code)).inc()
        return response

    async def _predict(self, request: Request) -> Response:
        try:
            self._authorise(request)
            record, pixels = await self._record(await self._body(request))
            started = time.monotonic()
            prediction = prediction_of(await self.batcher.answer(record, pixels), self.predictor)
        except Refusal as refusal:
            return refused(refusal)
        except ClientDisconnect:
            return refused(Refusal(400, "gone", "the caller went away"))
        self.seconds.observe(time.monotonic() - started)
        self.outcomes.labels(prediction.outcome).inc()
        self.tokens.labels("prompt").inc(prediction.n_prompt_tokens or 0)
        self.tokens.labels("answer").inc(prediction.n_output_tokens or 0)
        return answered(prediction)

    async def _record(self, body: bytes) -> tuple[Record, int]:
        """Read a body, a large one in a thread. Raises `Refusal`."""
        if len(body) < LARGE:
            return self.reader.record(body)
        return await asyncio.get_running_loop().run_in_executor(self.readers, self.reader.record, body)

    def check_host(self, request: Request) -> None:
        """Raise `Refusal` if the Host header names another place, as a page does whose name was turned to this one."""
        if self.hosts and host_of(request.headers.get("host", "")) not in self.hosts:
            raise Refusal(400, "wrong_host", f"the Host header names none of {', '.join(sorted(self.hosts))}")

    def _authorise(self, request: Request) -> None:
        """Raise `Refusal` without the token, and for a body that is not declared as JSON, which a foreign web
        page could send without asking the user."""
        if self.token is not None:
            header = request.headers.get("authorization", "").encode("latin-1")  # the bytes as they were sent
            scheme, _, token = header.partition(b" ")
            matches = secrets.compare_digest(token, self.token.encode())
            if scheme.lower() != b"bearer" or not matches:
                raise Refusal(401, "no_token", "send the header Authorization: Bearer TOKEN")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "not_json", "send the header Content-Type: application/json")

    async def _body(self, request: Request) -> bytes:
        """Return the bytes of the request, within size and time. Raises `Refusal`."""
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.limits.body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.upload):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self.limits.body:
                        raise self._too_large()
        except TimeoutError as error:
            raise Refusal(408, "slow", f"the body took longer than {self.limits.upload:g} s") from error
        return bytes(body)

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"the body is larger than {self.limits.body} bytes")

    async def schema(self, request: Request) -> Response:
        """Return what may be sent and what comes back."""
        return _json(
            {
                "schema": self.predictor.schema.name,
                "variant": self.predictor.schema.variant,
                "fields": [*self.predictor.schema.prompt.fields],
                "value": self.predictor.schema.json_schema,
                "limits": self.limits.model_dump(mode="json"),
            }
        )

    async def healthz(self, request: Request) -> Response:
        """Return whether the backend answers, and what its probe says of the adapter."""
        trouble, verdict = self.batcher.trouble, adapter_verdict(self.predictor.backend)
        told = {"held": self.batcher.held} | ({"adapter": verdict} if verdict is not None else {})
        if (stuck := self.batcher.stuck) is not None:
            return _json({"status": "stuck", "reason": stuck} | told, 503)
        if trouble is None:
            return _json({"status": "ok"} | told)
        return _json({"status": "failing", "reason": trouble} | told, 503)

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return _json(self.document)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text form."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the queue while the application runs."""
        runner = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            runner.cancel()
            self.batcher.close()
            self.readers.shutdown(wait=False, cancel_futures=True)


def application(
    predictor: Predictor, limits: Limits | None = None, token: str | None = None, hosts: Sequence[str] = ()
) -> Starlette:
    """Return the application around a predictor, which any ASGI server runs in one process.

    Args:
        predictor: What answers.
        limits: What a caller may ask for; None takes the defaults.
        token: Bearer token that callers must send; None for no token.
        hosts: Names that the Host header may say; none for any.
    """
    service = Service(predictor, limits or Limits(), token, hosts)

    def route(path: str, answer: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                service.check_host(request)
            except Refusal as refusal:
                return refused(refusal)
            return await answer(request)

        return Route(path, endpoint, methods=[method])

    routes = [
        route("/predict", service.predict, "POST"),
        route("/schema", service.schema, "GET"),
        route("/healthz", service.healthz, "GET"),
        route("/metrics", service.metrics, "GET"),
        route("/openapi.json", service.openapi, "GET"),
    ]
    made = Starlette(routes=routes, lifespan=service.lifespan, exception_handlers={HTTPException: _other})
    made.state.service = service
    return made


def answered(prediction: Prediction) -> Response:
    """Return an answer as JSON; a failed request keeps its outcome and gets the status of an error."""
    status = {"request_failed": 502, "timeout": 504}.get(prediction.outcome, 200)
    fields = msgspec.structs.asdict(prediction)
    return _json({name: value for name, value in fields.items() if name not in openapi.NOT_SENT}, status)


def refused(refusal: Refusal) -> Response:
    """Return a refusal as JSON."""
    error = {"error": {"code": refusal.code, "message": str(refusal)}}
    headers = {"Retry-After": str(refusal.retry)} if refusal.retry is not None else None
    return _json(error, refusal.status, headers)


async def _other(request: Request, error: Exception) -> Response:
    """Refuse unknown paths and methods."""
    assert isinstance(error, HTTPException)
    where = "POST /predict, GET /schema, /healthz, /metrics, /openapi.json"
    response = refused(Refusal(error.status_code, "no_such_place", f"{error.detail}: there are {where}"))
    response.headers.update(error.headers or {})  # Allow, of a method that is not there
    return response


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
