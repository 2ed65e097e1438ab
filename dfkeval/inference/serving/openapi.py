"""The OpenAPI document of the service, as `GET /openapi.json` gives it."""

from __future__ import annotations

from typing import Any

import msgspec

from dfkdata.common.versions import installed_versions
from dfkeval.inference.batch import Prediction
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving.limits import Limits
from dfkeval.types import OUTCOMES

#: Status -> what it means, for every refusal.
REFUSALS = {
    400: "The body is not JSON in UTF-8, or the Host header names another place.",
    401: "No bearer token, or another one.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "Wrong shape, an unknown field, nothing to ask, a control token, too long, or a picture that cannot be used.",
    502: "The engine failed.",
    503: "The queue is full, or the engine is stuck.",
    504: "The time is up.",
}
#: Fields of a prediction that are about rows of a file.
NOT_SENT = ("id", "source")


def document(predictor: Predictor, limits: Limits, *, token: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a service.

    Args:
        predictor: What answers.
        limits: What a caller may ask for.
        token: Whether callers must send one.
    """
    (answer,), shared = msgspec.json.schema_components(
        [Prediction], ref_template="#/components/schemas/{name}"
    )
    answer = shared.pop("Prediction", answer)
    fields = {name: each for name, each in answer["properties"].items() if name not in NOT_SENT}
    fields["outcome"] = {"enum": [*OUTCOMES, "abstained"]}
    error = {"type": "object", "required": ["code", "message"], "properties": _texts("code", "message")}
    refusal = {"type": "object", "required": ["error"], "properties": {"error": error}}
    schemas = {
        "Question": _question(predictor, limits),
        "Answer": {"type": "object", "required": [*fields], "properties": fields},
        "Refusal": refusal,
        **shared,
    }
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"dfkeval serve: {predictor.schema.name}",
            "version": installed_versions(["dfk"])["dfk"] or "0",
        },
        "paths": {"/predict": {"post": _predict()}}
        | {path: {"get": _get(*about)} for path, about in _READS.items()},
        "components": {"schemas": schemas},
    }
    if token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["paths"]["/predict"]["post"]["security"] = [{"token": []}]
    return made


_READS = {
    "/schema": ("What may be sent, and what comes back.", "application/json", {}),
    "/healthz": ("Whether the engine answers.", "application/json", {503: "It failed, or is stuck."}),
    "/metrics": ("Counts, times and tokens for Prometheus.", "text/plain", {}),
    "/openapi.json": ("This document.", "application/json", {}),
}


def _question(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    names = predictor.schema.prompt.fields
    text = {"type": "string", "maxLength": limits.characters}
    picture = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "Base64 of JPEG, PNG, WebP or GIF, or a data URI.",
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "fields": {
                "type": "object",
                "additionalProperties": False,
                "properties": dict.fromkeys(names, text),
            },
            "images": {"type": "array", "items": picture, "maxItems": limits.images},
            "image": {"anyOf": [picture, {"type": "null"}]},
        },
    }


def _predict() -> dict[str, Any]:
    def said(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    refusals = {
        str(status): {"description": about, "content": said("Refusal")} for status, about in REFUSALS.items()
    }
    for status in ("502", "504"):  # of a question, or of the whole batch
        either = [{"$ref": f"#/components/schemas/{name}"} for name in ("Refusal", "Answer")]
        refusals[status]["content"] = {"application/json": {"schema": {"anyOf": either}}}
    return {
        "summary": "Answer one question.",
        "requestBody": {"required": True, "content": said("Question")},
        "responses": {"200": {"description": "The model answered.", "content": said("Answer")}} | refusals,
    }


def _get(about: str, kind: str, others: dict[int, str]) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "object"} if kind.endswith("json") else {"type": "string"}}}
    answers = {200: about, **others}
    return {
        "summary": about,
        "responses": {
            str(status): {"description": text, "content": content} for status, text in answers.items()
        },
    }


def _texts(*names: str) -> dict[str, Any]:
    return {name: {"type": "string"} for name in names}
