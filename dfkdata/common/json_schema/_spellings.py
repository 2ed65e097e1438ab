"""Put spellings of other languages and dialects into JSON Schema's: type names and `nullable`.

Type names are compared in small letters. Besides the names of TYPE_ALIASES, `list[int]`, `Array<string>`,
`int[]`, `[]int`, `float[3]`, `Optional[str]`, `int?`, `int | None`, `int or null`, `Union[int, str]` and
`str, optional` are read."""

from __future__ import annotations

import re
from typing import Any, Final

TYPES: Final = frozenset(("string", "integer", "number", "boolean", "null", "object", "array"))
#: Type names, in small letters, that tool catalogues use and JSON Schema does not know.
TYPE_ALIASES: Final = {
    **dict.fromkeys(
        (
            "str", "char", "character", "text", "varchar", "nvarchar", "date", "datetime", "time", "uuid", "guid",
            "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "password", "regex", "uri", "url",
        ),
        "string",
    ),
    **dict.fromkeys(
        (
            "int", "long", "short", "byte", "bigint", "smallint", "tinyint", "biginteger", "int8", "int16", "int32",
            "int64", "uint", "uint8", "uint16", "uint32", "uint64", "unsigned int", "long long",
        ),
        "integer",
    ),
    **dict.fromkeys(
        (
            "float", "double", "decimal", "bigdecimal", "numeric", "real", "float16", "float32", "float64",
            "double precision",
        ),
        "number",
    ),
    "bool": "boolean",
    **dict.fromkeys(("none", "nonetype", "nil"), "null"),
    **dict.fromkeys(("dict", "dictionary", "map", "mapping", "hashmap", "hashtable", "struct"), "object"),
    **dict.fromkeys(
        ("list", "tuple", "set", "frozenset", "sequence", "iterable", "arraylist", "vector", "collection",
         "ndarray"),
        "array",
    ),
}  # fmt: skip
#: Names that assert nothing.
_ANY: Final = ("any", "anytype", "mixed", "unknown")
#: A name with what it holds: `List[int]`, `Array<string>`.
_HOLDS: Final = re.compile(r"([a-z_.]++)[ ]*+[\[<(](.*)[\])>]", re.DOTALL)
#: An array as Java, C# and TypeScript write it: `int[]`, and `float[3]` of C; Go puts the brackets in front.
_ARRAY_OF: Final = re.compile(r"(.*[^ ])[ ]*+\[[ ]*+[0-9]*+[ ]*+\]", re.DOTALL)
_OPTIONAL: Final = re.compile(r"[ ]*+,[ ]*+optional\Z")


class UnknownType(ValueError):
    """A type name means nothing in JSON Schema or any language that is read."""


def type_names(name: str) -> tuple[list[str], str | None]:
    """Return the JSON types that `name` stands for, and the type of an array's items if it says so. No
    types: anything is allowed.

    Raises:
        UnknownType: if the name is not known."""
    if name in TYPES:
        return [name], None
    plain = _OPTIONAL.sub("", name.strip().lower()).replace(" or ", " | ")
    if plain in _ANY:
        return [], None
    if plain in TYPES:
        return [plain], None
    if plain in TYPE_ALIASES:
        return [TYPE_ALIASES[plain]], None
    if len(plain) > 200:
        raise UnknownType(name)
    return _composed(plain, name)


def _composed(plain: str, name: str) -> tuple[list[str], str | None]:
    """Return what a name made of other names means."""
    if len(parts := _split(plain, "|")) > 1:
        return _union(parts), None
    if plain.endswith("?"):
        return _union([plain.rstrip("? "), "null"]), None
    array = _ARRAY_OF.fullmatch(plain)
    if array is not None or plain.startswith("[]"):
        return _array_of(plain[2:].strip() if array is None else array.group(1))
    held = _HOLDS.fullmatch(plain)
    if held is not None:
        return _generic(held.group(1).rpartition(".")[2], held.group(2))
    if "." in plain:
        return type_names(plain.rpartition(".")[2])  # the module or package that a type is of
    raise UnknownType(name)


def _array_of(item: str) -> tuple[list[str], str | None]:
    """Return what `item[]` means; `list[]` says nothing about the items of the list."""
    if item == "array" or TYPE_ALIASES.get(item) == "array":
        return ["array"], None
    types, _ = type_names(item)
    return ["array"], types[0] if len(types) == 1 else None


def _generic(outer: str, inner: str) -> tuple[list[str], str | None]:
    parts = _split(inner, ",")
    if outer == "optional":
        return _union([inner, "null"]), None
    if outer == "union":
        return _union(parts), None
    outer_types, _ = type_names(outer)
    if not inner.strip() and outer_types != ["array"]:
        raise UnknownType(f"{outer} of nothing")
    if outer_types != ["array"] or len(parts) != 1:
        return outer_types, None
    try:
        items, _ = type_names(parts[0])
    except UnknownType:
        return outer_types, None
    return outer_types, items[0] if len(items) == 1 else None


def _union(parts: list[str]) -> list[str]:
    """Return the types of all `parts`; none if one of them may be anything."""
    alternatives = [type_names(part)[0] for part in parts]
    return [name for types in alternatives for name in types] if all(alternatives) else []


def _split(text: str, sign: str) -> list[str]:
    """Return the parts of `text` between the signs that stand outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "[<(") - (character in "])>")
        if character == sign and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def is_nullable(schema: dict[str, Any]) -> bool:
    """Return whether `schema` says `nullable: true`, which OpenAPI writes; text is read too.

    Raises:
        ValueError: if it says neither true nor false."""
    nullable = schema.get("nullable")
    if isinstance(nullable, str) and nullable.strip().lower() in ("true", "false"):
        return nullable.strip().lower() == "true"
    if nullable is not None and not isinstance(nullable, bool):
        raise ValueError(f"nullable is true or false, not {nullable!r}")
    return bool(nullable)


def rewrite_type(schema: dict[str, Any]) -> str | None:
    """Put the type names in `schema` into JSON Schema's. A `type` that holds "any" or an unknown name asserts
    nothing and goes; the unknown name is returned."""
    if str(schema["type"]).lower() == "enum" and "enum" in schema:
        del schema["type"]  # `enum` says it all
        return None
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not all(isinstance(name, str) for name in names):
        return None  # the engine refuses it
    known: list[str] = []
    anything = False
    for name in names:
        try:
            types, items = type_names(name)
        except UnknownType:
            del schema["type"]
            return str(name)
        anything = anything or not types
        known += types
        if items is not None:
            schema.setdefault("items", {"type": items})
    if anything:
        del schema["type"]
        return None
    if is_nullable(schema):
        known.append("null")
    known = list(dict.fromkeys(known))
    schema["type"] = known if len(known) != 1 else known[0]
    return None
