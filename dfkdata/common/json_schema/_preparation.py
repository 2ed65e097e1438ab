"""Copy a schema, put other spellings into the terms of its draft, and follow its references.

How it works: one walk visits every subschema that a keyword or a reference reaches. It has other spellings
rewritten (`_rewriting`) and registers `$id` and anchors; references are followed when all resources are known. A
reference into a part that rewriting moved is written anew."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urljoin

from dfkdata.common.json_schema._rewriting import COMBINATIONS, REFERENCES, Rewriting, SchemaError, has_looks
from dfkdata.common.recursion import Steps, run

#: The base of references in a schema without an absolute `$id`.
BASE: Final = "dfk://schema/root"
#: Schemas nested deeper are refused.
MAX_DEPTH: Final = 120
#: Chains of references and combinations with more steps are refused.
MAX_STEPS: Final = 1000
#: How many schemas the engine may apply to one value on average for each part, and how many always.
_AGAIN, _ALWAYS = 20, 2_000

#: Number of the draft -> its `$schema`.
DRAFT_URIS: Final = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}

_ONE: Final = (
    "items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties",
    "unevaluatedProperties", "propertyNames", "not", "if", "then", "else", "contentSchema",
)  # fmt: skip
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_TABLES: Final = (
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies",
)  # fmt: skip
#: Keywords whose subschemas see the same value as the schema that holds them.
_IN_PLACE_ONE: Final = ("not", "if", "then", "else")
_IN_PLACE_TABLES: Final = ("dependentSchemas", "dependencies")


class Prepared(NamedTuple):
    """A schema that the engine can compile.

    Attributes:
        root: the rewritten copy.
        base: absolute URI of the root.
        draft: 4, 6, 7, 2019 or 2020.
        places: id of a subschema -> its JSON pointer in the root.
        targets: id of a schema with a reference -> the schema it refers to.
        parts: the subschemas that are no booleans.
        is_shared: parts are combined in so many ways that the engine would take long to decide.
        unnamed: the subschemas that only a reference leads to, no keyword: the engine does not check their form.
        looks: some pattern looks around or back, which the linear engine cannot.
        unknown_types: JSON pointer of a `type` that names no type -> that name. It asserts nothing."""

    root: Any
    base: str
    draft: int
    places: dict[int, str]
    targets: dict[int, Any]
    parts: list[dict[str, Any]]
    is_shared: bool
    unnamed: list[Any]
    looks: bool
    unknown_types: dict[str, str]


def pointer_step(key: str) -> str:
    """Return `key` as one step of a JSON pointer."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def pointer_steps(pointer: str) -> list[str]:
    """Return the steps of a JSON pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def prepare(schema: Any) -> Prepared:
    """Return `schema` as the engine reads it.

    Raises:
        SchemaError: if the schema cannot be used."""
    try:
        return _Preparation(encodable(schema)).prepared()
    except RecursionError:
        raise SchemaError(f"the schema is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(f"a reference or name in the schema is not a URI: {error}") from None


def encodable(value: Any) -> Any:
    """Return a copy of `value` in which characters of a private plane stand for lone surrogates, which the
    engine cannot read. Different surrogates stay different, and lengths do not change.

    Raises:
        SchemaError: if the key of an object is not text."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise SchemaError("the schema cannot be read: the key of an object is not text")
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    if not isinstance(value, str) or value.isascii():
        return value
    return value.translate(_SURROGATES)


_SURROGATES: Final = {code: 0x100000 + code - 0xD800 for code in range(0xD800, 0xE000)}


class _Preparation:
    """The state of one walk."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.draft = _draft(root)
        self.looks = has_looks(root, self.draft)
        self._rewriting = Rewriting(self.draft, self.looks)
        self.places: dict[int, str] = {}
        self.targets: dict[int, Any] = {}
        self._visited: list[dict[str, Any]] = []
        self._unnamed: list[Any] = []
        self._resources: dict[str, Any] = {}
        self._anchors: dict[str, Any] = {}
        self._references: list[tuple[dict[str, Any], str, str]] = []
        #: Each reference: the schema that holds it, under which keyword, and its base.
        self._followed: list[tuple[dict[str, Any], str, str]] = []

    def prepared(self) -> Prepared:
        """Walk, follow, and refuse circles."""
        name = _own_id(self.root, self.draft) if isinstance(self.root, dict) else ""
        base = _joined(BASE, name).partition("#")[0]
        self._resources[base] = self.root
        self._visit(self.root, "", base, 0)
        while self._references:
            self._followed.append(self._references.pop())
            schema, keyword, at = self._followed[-1]
            self.targets[id(schema)] = self._target(schema[keyword], at)
        for schema, keyword, at in self._followed:  # now that nothing moves any more
            schema[keyword] = self._walk(schema[keyword], at)[2]
        ways = _most_ways(self._visited, self.targets, self.places)
        return Prepared(
            self.root,
            base,
            self.draft,
            self.places,
            self.targets,
            self._visited,
            ways > _ALWAYS + _AGAIN * len(self._visited),
            self._unnamed,
            self.looks,
            self._rewriting.unknown_types,
        )

    def _visit(self, schema: Any, pointer: str, base: str, depth: int) -> None:
        if isinstance(schema, bool) or id(schema) in self.places:
            return
        if not isinstance(schema, dict):
            raise SchemaError(
                f"{pointer or '/'}: a schema must be an object or a boolean, not {type(schema).__name__}"
            )
        if depth > MAX_DEPTH:
            raise SchemaError(f"the schema is nested deeper than {MAX_DEPTH} levels")
        self.places[id(schema)] = pointer
        self._visited.append(schema)
        self._rewriting.around_ref(schema, pointer)
        base = self._register(schema, base)
        self._rewriting.rewrite(schema, pointer)
        for step, part in _parts(schema):
            self._visit(part, pointer + step, base, depth + 1)
        for keyword in REFERENCES:
            if isinstance(schema.get(keyword), str):
                self._references.append((schema, keyword, base))

    def _register(self, schema: dict[str, Any], base: str) -> str:
        """Note the names of `schema` and return the base of its references."""
        base = _joined(base, _own_id(schema, self.draft))
        if "#" in base:  # up to draft 7, an `$id` that is a fragment is an anchor
            self._anchors[base] = schema
            return base.partition("#")[0]
        if self._resources.setdefault(base, schema) is not schema and _own_id(schema, self.draft):
            raise SchemaError(f"two parts of the schema are named {_own_id(schema, self.draft)!r}")
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = schema.get(keyword)
            if isinstance(name, str) and self._anchors.setdefault(f"{base}#{name}", schema) is not schema:
                raise SchemaError(f"two parts of the schema have the anchor {name!r}")
        return base

    def _target(self, reference: str, base: str) -> Any:
        """Return the schema that `reference` names; it is prepared too if no keyword leads to it."""
        found, place, _ = self._walk(reference, base)
        if not isinstance(found, bool) and id(found) not in self.places:
            self._unnamed.append(found)
        self._visit(found, place, _joined(base, reference).partition("#")[0], 0)
        return found

    def _walk(self, reference: str, base: str) -> tuple[Any, str, str]:
        """Return the schema that `reference` names, where it stands, and the reference that names this place."""
        uri, _, fragment = _joined(base, reference).partition("#")
        if uri not in self._resources:
            raise SchemaError(f"$ref {reference!r}: only references inside the same schema can be resolved")
        found = self._resources[uri]
        place = self.places.get(id(found), "")
        if fragment and not fragment.startswith("/"):
            if f"{uri}#{fragment}" not in self._anchors:
                raise SchemaError(f"$ref {reference!r} points to nothing: no anchor {fragment!r}")
            found = self._anchors[f"{uri}#{fragment}"]
            return found, self.places[id(found)], reference
        written = pointer_steps(unquote(fragment))
        steps: list[str] = []
        for key in written:
            for step in self._rewriting.now_at(found, key):
                if isinstance(found, dict) and step in found:
                    found = found[step]
                elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                    found = found[int(step)]
                else:
                    raise SchemaError(f"$ref {reference!r} points to nothing: no {key!r}")
                steps.append(step)
        pointer = "".join(map(pointer_step, steps))
        if steps != written:
            reference = f"{reference.partition('#')[0]}#{quote(pointer, safe='/~')}"
        return found, place + pointer, reference


def _draft(root: Any) -> int:
    declared = root.get("$schema") if isinstance(root, dict) else None
    if declared is None:
        return 2020
    draft = next((draft for draft, uri in DRAFT_URIS.items() if _same_uri(declared, uri)), None)
    if draft is None:
        raise SchemaError(f"$schema {declared!r} is not known; use draft 4, 6, 7, 2019-09 or 2020-12")
    return draft


def _same_uri(declared: Any, uri: str) -> bool:
    return isinstance(declared, str) and _bare(declared) == _bare(uri)


def _bare(uri: str) -> str:
    """`uri` without its scheme and an empty fragment; schemas write either."""
    return uri.rstrip("#").removeprefix("https://").removeprefix("http://")


def _own_id(schema: dict[str, Any], draft: int) -> str:
    name = schema.get("id" if draft == 4 else "$id")
    return name if isinstance(name, str) else ""


def _joined(base: str, reference: str) -> str:
    """`reference` resolved against `base`, without an empty fragment."""
    if reference.startswith("#"):  # urljoin drops the base of URNs
        return (base + reference).rstrip("#")
    return urljoin(base, reference).removesuffix("#")


def _parts(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the subschemas under the keywords of `schema`, each with its step from there."""
    parts = [(f"/{word}", schema[word]) for word in _ONE if word in schema and not _is_tuple(schema, word)]
    for word in _LISTS:
        if isinstance(schema.get(word), list):
            parts += [(f"/{word}/{number}", part) for number, part in enumerate(schema[word])]
    for word in _TABLES:
        if isinstance(schema.get(word), dict):
            table = schema[word].items()
            parts += [
                (f"/{word}{pointer_step(key)}", part) for key, part in table if not isinstance(part, list)
            ]
    return parts


def _is_tuple(schema: dict[str, Any], word: str) -> bool:
    return word == "items" and isinstance(schema["items"], list)


def _most_ways(parts: list[dict[str, Any]], targets: dict[int, Any], places: dict[int, str]) -> int:
    """Return how many schemas the engine may apply to one value of one of `parts`.

    Raises:
        SchemaError: if references come back to where they started without entering a value, or follow each other
            too long."""
    cost: dict[int, int] = {}
    path: set[int] = set()

    def walk(schema: Any) -> Steps[int]:
        if not isinstance(schema, dict):
            return 1
        if id(schema) in cost:
            return cost[id(schema)]
        if id(schema) in path:
            raise SchemaError(f"#{places[id(schema)]} refers to itself and describes nothing")
        if len(path) > MAX_STEPS:
            raise SchemaError(f"references follow each other over more than {MAX_STEPS} steps")
        path.add(id(schema))
        total = 1
        for part in (targets.get(id(schema)), *in_place(schema)):
            total += yield walk(part)
        path.remove(id(schema))
        cost[id(schema)] = total
        return total

    return max((run(walk(part)) for part in parts), default=1)


def in_place(schema: dict[str, Any]) -> list[Any]:
    """Return the subschemas of `schema` that see the same value as it does."""
    parts = [schema[word] for word in _IN_PLACE_ONE if word in schema]
    for word in COMBINATIONS:
        parts += schema[word] if isinstance(schema.get(word), list) else []
    for word in _IN_PLACE_TABLES:
        parts += schema[word].values() if isinstance(schema.get(word), dict) else []
    return parts
