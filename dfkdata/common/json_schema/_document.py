"""Compile a prepared schema, or a part of it, with jsonschema-rs."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import quote

from dfkdata.common.json_schema._effort import takes_long
from dfkdata.common.json_schema._issues import Issue, cut, foreign_issue, issues_of
from dfkdata.common.json_schema._memoised import Memoised
from dfkdata.common.json_schema._preparation import DRAFT_URIS, encodable, prepare
from dfkdata.common.json_schema._rewriting import SchemaError


class Validator:
    """Decides whether values fit one schema. Never raises: what JSON cannot write does not fit."""

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
        except ValueError:  # lone surrogates, or what is no JSON
            return foreign_issue(value) is None and bool(self._fits(encodable(value)))

    def issues(self, value: Any) -> list[Issue]:
        """Return what the schema has against `value`; an empty list if it fits."""
        if self.is_valid(value):
            return []
        foreign = foreign_issue(value)
        return self._reasons(encodable(value)) if foreign is None else [foreign]

    def _reasons(self, value: Any) -> list[Issue]:
        try:
            if self._document.takes_long(self._parts, value):
                return self._document.memoised.issues(self._parts, value)
            return issues_of(self._engine.iter_errors(value))
        except SchemaError:  # no reason can be given in time
            return issues_of([])
        except ValueError:
            return [Issue("", "too_deep", "the value is nested too deeply to be compared with its schema")]


class _Memoising(Validator):
    """Decides about values whose schema combines its parts in many ways, without one engine for all of it."""

    __slots__ = ()

    def __init__(self, document: SchemaDocument, parts: tuple[Any, ...]) -> None:
        self._document = document
        self._parts = parts

    def is_valid(self, value: Any) -> bool:
        """Return whether `value` fits the schema."""
        return not self.issues(value)

    def issues(self, value: Any) -> list[Issue]:
        """Return what the schema has against `value`; an empty list if it fits."""
        foreign = foreign_issue(value)
        return self._reasons(encodable(value)) if foreign is None else [foreign]

    def _reasons(self, value: Any) -> list[Issue]:
        try:
            return self._document.memoised.issues(self._parts, value)
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
        for part in self._prepared.unnamed:
            self._check_form(part)
        if self._prepared.is_shared:
            _ = self.memoised  # it may refuse the schema
        self.root: Any = self._prepared.root
        self.unknown_types = self._prepared.unknown_types
        self._patterns: dict[str, Any] = {}
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

    def matches(self, pattern: str, name: str) -> bool:
        """Return whether a property of this name belongs to `pattern`, a key of `patternProperties` here."""
        if pattern not in self._patterns:
            self._patterns[pattern] = self._compile(self._with_draft({"pattern": pattern}), None)
        engine = self._patterns[pattern]
        return bool(engine.is_valid(encodable(name)))

    def takes_long(self, parts: tuple[Any, ...], value: Any) -> bool:
        """Return whether the engine would take long to say what `parts` of this document have against `value`."""
        return takes_long(parts, value, self._prepared.targets)

    @cached_property
    def memoised(self) -> Memoised:
        """Return the reader of values that take the engine long.

        Raises:
            SchemaError: if it cannot read this document."""
        return Memoised(self._prepared, lambda schema: self._compile(schema, None), self.matches)

    def _validator(self, schema: Any, parts: tuple[Any, ...]) -> Validator:
        """Let the engine compile the root, or a schema that refers to `parts` of it."""
        is_root = schema is self.root
        if self._prepared.is_shared:
            if is_root:
                self._compile(schema, None)  # it refuses what is no schema
            return _Memoising(self, parts)
        return Validator(self._compile(schema, None if is_root else self._registry), self, parts)

    def _reference(self, schema: Any) -> Any:
        if isinstance(schema, bool):
            return schema
        place = quote(self._prepared.places[id(schema)], safe="/~")
        return {"$ref": f"{self._prepared.base}#{place}"}

    def _with_draft(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"$schema": DRAFT_URIS[self._prepared.draft], **schema}

    def _check_form(self, part: Any) -> None:
        """Refuse a part that is no schema of its draft."""
        import jsonschema_rs

        try:
            jsonschema_rs.meta.validate(self._with_draft(part))
        except jsonschema_rs.ValidationError as bad:
            step = "".join(f"/{each}" for each in bad.instance_path)
            raise SchemaError(f"{self._prepared.places[id(part)]}{step}: {cut(bad.message)}") from None
        except (ValueError, TypeError, LookupError, jsonschema_rs.ReferencingError) as bad:
            raise SchemaError(f"the schema cannot be read: {cut(str(bad))}") from None

    def _compile(self, schema: Any, registry: Any) -> Any:
        """Let the engine compile a schema that refers to what is in `registry`."""
        import jsonschema_rs

        known = {} if registry is None else {"registry": registry}
        known["pattern_options"] = _looking() if self._prepared.looks else _linear()
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


@lru_cache(maxsize=1)
def _linear() -> Any:
    import jsonschema_rs

    return jsonschema_rs.RegexOptions()


@lru_cache(maxsize=1)
def _looking() -> Any:
    import jsonschema_rs

    return jsonschema_rs.FancyRegexOptions()


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
