"""Pydantic class -> JSON Schema -> tool definition. The class is the only place where an answer's shape is
written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def json_schema(answer: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `answer`, keys in pydantic's order; the class docstring is not part
    of it."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    return schema


def tool(name: str, description: str, answer: type[BaseModel]) -> dict[str, Any]:
    """An OpenAI-style tool definition whose parameters are the JSON Schema of `answer`."""
    function = {"name": name, "description": description, "parameters": json_schema(answer)}
    return {"type": "function", "function": function}
