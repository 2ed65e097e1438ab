"""Derive the JSON Schema and the tool definition of an answer from its class."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def json_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `answer`, with keys in pydantic's order.

    The class docstring is not part of it."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    return schema


def tool(name: str, description: str, answer: type[BaseModel]) -> dict[str, Any]:
    """Return an OpenAI-style tool definition whose parameters are the JSON Schema of `answer`."""
    function = {"name": name, "description": description, "parameters": json_schema(answer)}
    return {"type": "function", "function": function}
