"""Draw instances of JSON Schemas, typed calls of tools, and text that is hostile to tag parsers (Hypothesis).

Random text almost never holds a tag, so hostile text is built from the pieces of the syntax itself."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

#: The syntax in pieces: whole tags, cut tags, drifted tags, framing, Markdown, JSON and values.
PIECES: Final = (
    "<tool_call>",
    "</tool_call>",
    "<function=",
    "</function>",
    "<parameter=",
    "</parameter>",
    ">",
    "<",
    "\n",
    "\n\n",
    " ",
    "<function=ping>",
    "<function=file_note>",
    "<parameter=title>",
    "<parameter=body>",
    "<parameter=fake>",
    "<parameter=count>",
    "<parameter=tags>",
    "<tool_call>\n<function=ping>\n",
    "<tool_call>\n<function=file_note>\n<parameter=title>\n",
    "\n</parameter>\n",
    "\n</parameter>\n<parameter=body>\n",
    "\n</parameter>\n</function>\n</tool_call>",
    "</function>\n</tool_call>",
    "</parameter1>",
    "</param>",
    "</function_call>",
    "</tool_ca",
    "</para",
    "<function",
    "<tool",
    "<think>",
    "</think>",
    "<think>\n",
    "\n</think>\n\n",
    "```",
    "`",
    "~~~\n",
    "\r\n",
    "<|im_end|>",
    "<|endoftext|>",
    "null",
    "None",
    "True",
    "42",
    "[1, 2]",
    '["</parameter>"]',
    '{"a": 1, "a": 2}',
    "[[[",
    "x",
    "é",
    "\u2028",
    "\ud800",
    '{"name": "ping"}',
)


def tag_soup(max_pieces: int = 30) -> SearchStrategy[str]:
    """Return a strategy for text that is built from the pieces of the syntax."""
    return st.lists(st.sampled_from(PIECES), max_size=max_pieces).map("".join)


def hostile_text() -> SearchStrategy[str]:
    """Return a strategy for values that try to break a parser: characters, tags and framing mixed."""
    plain = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    return st.lists(st.one_of(plain, st.sampled_from(PIECES)), max_size=6).map("".join)


def instances(
    schema: dict[str, Any], strings: SearchStrategy[str] | None = None, root: dict[str, Any] | None = None
) -> SearchStrategy[Any]:
    """Return a strategy for values that a JSON Schema allows.

    Args:
        schema: it may use type (also lists), enum, const, anyOf, oneOf, local $ref, objects, arrays, lengths
            and bounds.
        strings: strategy for unconstrained strings.
        root: the schema that references point into; None for `schema` itself."""
    text = st.text(max_size=8) if strings is None else strings
    whole = schema if root is None else root
    if "$ref" in schema:
        return st.deferred(lambda: instances(_resolve(whole, schema["$ref"]), text, whole))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of([instances(part, text, whole) for part in schema[key]])
    kinds = schema.get("type", "string")
    if isinstance(kinds, list):
        return st.one_of([_typed(kind, schema, text, whole) for kind in kinds])
    return _typed(kinds, schema, text, whole)


def _resolve(root: dict[str, Any], ref: str) -> dict[str, Any]:
    target: Any = root
    for step in ref.removeprefix("#").split("/")[1:]:
        target = target[step]
    assert isinstance(target, dict)
    return target


def _typed(
    kind: str, schema: dict[str, Any], text: SearchStrategy[str], root: dict[str, Any]
) -> SearchStrategy[Any]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if kind == "integer":
        return st.integers(least, most)
    if kind == "number":
        return st.one_of(
            st.integers(least, most), st.floats(least, most, allow_nan=False, allow_infinity=False)
        )
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    if kind == "array":
        items = instances(schema.get("items", {}), text, root)
        return st.lists(items, min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 4))
    if kind == "object":
        return _objects(schema, text, root)
    if "minLength" in schema or "maxLength" in schema:
        return st.text(min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 20))
    return text


def _objects(
    schema: dict[str, Any], text: SearchStrategy[str], root: dict[str, Any]
) -> SearchStrategy[dict[str, Any]]:
    parts = {key: instances(part, text, root) for key, part in schema.get("properties", {}).items()}
    required = {key: part for key, part in parts.items() if key in schema.get("required", ())}
    optional = {key: part for key, part in parts.items() if key not in required}
    return st.fixed_dictionaries(required, optional=optional)


def calls(
    tools: list[dict[str, Any]], strings: SearchStrategy[str] | None = None
) -> SearchStrategy[tuple[str, dict[str, Any]]]:
    """Return a strategy for (name, arguments) of a valid call of one of `tools`, OpenAI-style definitions."""
    functions = [tool["function"] for tool in tools]
    return st.one_of(
        [
            st.tuples(st.just(function["name"]), instances(function["parameters"], strings))
            for function in functions
        ]
    )
