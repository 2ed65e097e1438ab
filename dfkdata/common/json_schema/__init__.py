"""Validate values against JSON Schemas: one engine for gold, answers and tool arguments.

How it works: a schema is copied and prepared (`_preparation`), which puts other spellings in use into the
terms of its draft and follows every reference; jsonschema-rs then compiles it and decides about values.
The schema's `$schema` selects the draft; without one, draft 2020-12 applies. `format` is an annotation in
every draft.

Guarantees:
- A schema is accepted or refused (`SchemaError`) when its `SchemaDocument` is made; nothing raises later.
- Nothing is fetched: a reference to another document is refused.
- What the preparation cannot express in JSON Schema is refused by name and never ignored.
- Only the standard library and jsonschema-rs are needed; jsonschema-rs is imported for the first schema
  that asserts something."""

from __future__ import annotations

from dfkdata.common.json_schema._document import SchemaDocument, Validator, encoded_document, schema_validator
from dfkdata.common.json_schema._issues import Issue, type_of
from dfkdata.common.json_schema._preparation import pointer_step, pointer_steps
from dfkdata.common.json_schema._rewriting import SchemaError
from dfkdata.common.json_schema._spellings import TYPE_ALIASES, TYPES

__all__ = [
    "TYPES",
    "TYPE_ALIASES",
    "Issue",
    "SchemaDocument",
    "SchemaError",
    "Validator",
    "encoded_document",
    "pointer_step",
    "pointer_steps",
    "schema_validator",
    "type_of",
]
