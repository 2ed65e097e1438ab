"""The ASGI application.

    POST /predict   {"fields": {…}, "images": [base64]} -> {"outcome", "value", "problems", …}
    GET  /schema    what may be sent, and what comes back
    GET  /healthz   200 while the engine answers, 503 after it failed
    GET  /metrics   counts, times and tokens in Prometheus' text form

Statuses: 200 for every answer of the model, also one that is not valid: `outcome` says so and `value` is then
null. 400, 408, 413, 415, 422 are the caller's; 401 without the token, 503 a full queue, 502 an engine that
failed, 504 time that is up. Every refusal is {"error": {"code", "message"}}."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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

from dfkeval.inference.batch import Prediction, prediction_of
from dfkeval.inference.inputs import prompt_fields
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving.batching import Batcher
from dfkeval.inference.serving.limits import Limits, Refusal
from dfkeval.inference.serving.request_body import RequestReader

Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """One predictor behind one queue, with its own metrics. token: what callers must send as bearer; None
    for none."""

    def __init__(self, predictor: Predictor, limits: Limits, token: str | None = None) -> None:
        self.predictor, self.limits, self.token = predictor, limits, token
        self.reader = RequestReader(predictor, limits)
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
        """One question, one typed answer."""
        response = await self._predict(request)
        self.requests.labels(str(response.status_code)).inc()
        return response

    async def _predict(self, request: Request) -> Response:
        try:
            self._authorise(request)
            record = self.reader.record(await self._body(request))
            started = time.monotonic()
            found = prediction_of(await self.batcher.answer(record), self.predictor)
        except Refusal as refusal:
            return refused(refusal)
        except ClientDisconnect:
            return refused(Refusal(400, "gone", "the caller went away"))
        self.seconds.observe(time.monotonic() - started)
        self.outcomes.labels(found.outcome).inc()
        self.tokens.labels("prompt").inc(found.n_prompt_tokens or 0)
        self.tokens.labels("answer").inc(found.n_output_tokens or 0)
        return answered(found)

    def _authorise(self, request: Request) -> None:
        """Raises `Refusal` without the token, and for a body that is not said to be JSON, which a foreign web
        page could send unasked."""
        if self.token is not None:
            said = request.headers.get("authorization", "").encode("latin-1")  # the bytes, as they were sent
            scheme, _, given = said.partition(b" ")
            right = secrets.compare_digest(given, self.token.encode())
            if scheme.lower() != b"bearer" or not right:
                raise Refusal(401, "no_token", "send the header Authorization: Bearer TOKEN")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "not_json", "send the header Content-Type: application/json")

    async def _body(self, request: Request) -> bytes:
        """The bytes of the request, within size and time. Raises `Refusal`."""
        said = request.headers.get("content-length", "0")
        if said.isdecimal() and int(said) > self.limits.body:
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
        """What may be sent and what comes back."""
        return _json(
            {
                "schema": self.predictor.schema.name,
                "variant": self.predictor.schema.variant,
                "fields": prompt_fields(self.predictor.schema),
                "value": self.predictor.schema.json_schema,
                "limits": self.limits.model_dump(mode="json"),
            }
        )

    async def healthz(self, request: Request) -> Response:
        """Whether the engine answers."""
        trouble = self.batcher.trouble
        if trouble is None:
            return _json({"status": "ok", "held": self.batcher.held})
        return _json({"status": "failing", "held": self.batcher.held, "reason": trouble}, 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text form."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """The queue runs while the application does."""
        runner = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            runner.cancel()
            self.batcher.close()


def application(predictor: Predictor, limits: Limits | None = None, token: str | None = None) -> Starlette:
    """The application around a predictor; any ASGI server runs it, in one process."""
    service = Service(predictor, limits or Limits(), token)
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/schema", service.schema, methods=["GET"]),
        Route("/healthz", service.healthz, methods=["GET"]),
        Route("/metrics", service.metrics, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan, exception_handlers={HTTPException: _other})


def answered(found: Prediction) -> Response:
    """An answer; a request that the engine failed keeps its outcome under an error's status."""
    status = {"request_failed": 502, "timeout": 504}.get(found.outcome, 200)
    told = msgspec.structs.asdict(found)
    return _json({name: value for name, value in told.items() if name not in ("id", "source")}, status)


def refused(refusal: Refusal) -> Response:
    """A refusal as JSON."""
    error = {"error": {"code": refusal.code, "message": str(refusal)}}
    headers = {"Retry-After": str(refusal.retry)} if refusal.retry is not None else None
    return _json(error, refusal.status, headers)


async def _other(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    where = "POST /predict, GET /schema, /healthz, /metrics"
    return refused(Refusal(error.status_code, "no_such_place", f"{error.detail}: there are {where}"))


def _json(value: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
