"""Compile a prepared schema, or a part of it, with jsonschema-rs."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import quote

from dfkdata.common.json_schema._effort import curt, curt_place, takes_long, without_reasons
from dfkdata.common.json_schema._issues import Issue, cut, issues_of
from dfkdata.common.json_schema._preparation import DRAFT_URIS, SchemaError, encodable, prepare


class Validator:
    """Decides whether values fit one schema. Never raises for a decoded JSON value."""

    __slots__ = ("_document", "_engine", "_fits", "_parts")

    def __init__(self, engine: Any, document: SchemaDocument, parts: tuple[Any, ...]) -> None:
        self._engine = engine
        self._fits = engine.is_valid
        self._document = document
        self._parts = parts

    def is_valid(self, value: Any) -> bool:
        """Return whether `value` fits the schema."""
        try:
            return bool(self._fits(value))
        except UnicodeEncodeError:
            return bool(self._fits(encodable(value)))

    def issues(self, value: Any) -> list[Issue]:
        """Return what the schema has against `value`; an empty list if it fits. Where alternatives would be
        read again and again, it is said that none fits and not why."""
        if self.is_valid(value):
            return []
        try:
            engine = self._document.explainer(self._parts, value) or self._engine
            try:
                return issues_of(engine.iter_errors(value))
            except UnicodeEncodeError:
                return issues_of(engine.iter_errors(encodable(value)))
        except SchemaError:  # no reason can be given in time
            return issues_of([])
        except ValueError:
            return [Issue("", "too_deep", "the value is nested too deeply to be compared with its schema")]


class _Everything(Validator):
    """Takes every value, without an engine."""

    __slots__ = ()

    def __init__(self) -> None:
        """Need nothing."""

    def is_valid(self, value: Any) -> bool:  # noqa: ARG002  # the base class names it
        return True


_EVERYTHING: Final = _Everything()


class SchemaDocument:
    """One JSON Schema with all that it refers to.

    Args:
        schema: a decoded JSON Schema; it is copied, not changed.

    Attributes:
        root: the schema as it was prepared; its parts are what the methods below take.
        unknown_types: JSON pointer of a `type` that names no type of JSON Schema -> that name. It asserts
            nothing.

    Raises:
        SchemaError: if any part of the schema cannot be used."""

    def __init__(self, schema: Any) -> None:
        self._prepared = prepare(schema)
        self.root: Any = self._prepared.root
        self.unknown_types = self._prepared.unknown_types
        self._null: dict[tuple[int, ...], bool] = {}
        self._whole = _EVERYTHING if self.root in (True, {}) else self._validator(self.root, (self.root,))

    def target(self, schema: dict[str, Any]) -> Any:
        """Return the schema that the reference in `schema`, a part of this document, leads to; None if
        there is no reference."""
        return self._prepared.targets.get(id(schema))

    def validator(self, *schemas: Any) -> Validator:
        """Return the validator of values that fit one of `schemas`, parts of this document."""
        if len(schemas) == 1 and schemas[0] is self.root:
            return self._whole
        if any(schema is True or schema == {} for schema in schemas):
            return _EVERYTHING
        parts = [self._reference(schema) for schema in schemas]
        whole = parts[0] if len(parts) == 1 else {"anyOf": parts}
        return self._validator(whole if isinstance(whole, bool) else self._with_draft(whole), schemas)

    def allows_null(self, *schemas: Any) -> bool:
        """Return whether null fits one of `schemas`, parts of this document; False for none."""
        key = tuple(map(id, schemas))
        if key not in self._null:
            self._null[key] = bool(schemas) and self.validator(*schemas).is_valid(None)
        return self._null[key]

    def explainer(self, parts: tuple[Any, ...], value: Any) -> Any:
        """Return the engine that says curtly what `parts` of this document have against `value`; None if
        there is time for every reason.

        Raises:
            SchemaError: if no reason can be given."""
        if not takes_long(parts, value, self._prepared.targets):
            return None
        if takes_long(parts, value, self._prepared.targets, is_curt=True):
            raise SchemaError("even curt reasons would take too long")
        references = [self._reference(part, is_curt=True) for part in parts]
        whole = references[0] if len(parts) == 1 else {"anyOf": [*map(without_reasons, references)]}
        return self._compile(self._with_draft(whole), self._curt_registry)

    def _validator(self, schema: Any, parts: tuple[Any, ...]) -> Validator:
        """Let the engine compile the root, or a schema that refers to `parts` of it."""
        return Validator(self._compile(schema, None if schema is self.root else self._registry), self, parts)

    def _reference(self, schema: Any, *, is_curt: bool = False) -> Any:
        if isinstance(schema, bool):
            return schema
        place = self._prepared.places[id(schema)]
        place = quote(curt_place(place) if is_curt else place, safe="/~")
        return {"$ref": f"{self._prepared.base}#{place}"}

    def _with_draft(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"$schema": DRAFT_URIS[self._prepared.draft], **schema}

    def _compile(self, schema: Any, registry: Any) -> Any:
        """Let the engine compile a schema that refers to what is in `registry`."""
        import jsonschema_rs

        known = {} if registry is None else {"registry": registry}
        try:
            return jsonschema_rs.validator_for(schema, validate_formats=False, retriever=_refuse, **known)
        except jsonschema_rs.ValidationError as bad:
            place = "/".join(str(step) for step in bad.instance_path)
            raise SchemaError(f"/{place}: {cut(bad.message)}") from None
        except (ValueError, TypeError, LookupError, jsonschema_rs.ReferencingError) as bad:
            raise SchemaError(f"the schema cannot be read: {cut(str(bad))}") from None

    @cached_property
    def _registry(self) -> Any:
        import jsonschema_rs

        return jsonschema_rs.Registry([(self._prepared.base, self.root)])

    @cached_property
    def _curt_registry(self) -> Any:
        import jsonschema_rs

        return jsonschema_rs.Registry([(self._prepared.base, curt(self._prepared))])


def _refuse(uri: str) -> Any:
    raise LookupError(f"{uri} is another document")


def schema_validator(schema: Any) -> Validator:
    """Return the validator of a whole schema.

    Raises:
        SchemaError: if the schema cannot be used."""
    document = SchemaDocument(schema)
    return document.validator(document.root)


@lru_cache(maxsize=256)
def encoded_document(schema: bytes) -> SchemaDocument | SchemaError:
    """Return the document of a schema as JSON, or why it cannot be used; those of one data set are few."""
    try:
        return SchemaDocument(json.loads(schema))
    except SchemaError as error:
        return error
