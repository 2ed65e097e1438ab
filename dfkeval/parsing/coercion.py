"""Read the text of a parameter as the value that its schema describes.

How it works: a schema is compiled once, into a `Slot`. It says which JSON types are possible. Each
possible reading of the text becomes a candidate, in a fixed order, and the first candidate that the whole
schema accepts is the value. The order is: null and booleans spelled exactly, then JSON containers, then
strings and numbers as the schema lists them; readings that need a repair come behind all others. So
`None` in a nullable string is null, `42` in `["integer", "string"]` is 42 and in `["string", "integer"]`
is "42".

Guarantees:
- Integers never pass through a float.
- A value that does not fit is refused with a JSON pointer; it never becomes a string or False instead.
- Nothing is stripped from a string.
- Lenient reading adds named repairs, all of which are returned; strict reading adds none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from dfkdata.common.json_schema import Issue, SchemaDocument, Validator
from dfkeval.parsing.json_text import (
    BLANKS,
    MAX_DIGITS,
    LiteralError,
    is_number,
    load_json,
    load_mended,
    load_python,
    number_of,
)
from dfkeval.parsing.possible_types import PossibleValues

Dialect = Literal["auto", "qwen3.5", "qwen3.6", "qwen3.8", "qwen3-coder-2507", "hermes"]

#: How each dialect's template spells null, true and false outside of JSON containers.
_PYTHON: Final = {"None": None, "True": True, "False": False}
_JSON: Final = {"null": None, "true": True, "false": False}
WORDS: Final[dict[str, dict[str, bool | None]]] = {
    "auto": {**_PYTHON, **_JSON},
    "qwen3.5": _PYTHON,
    "qwen3.6": _JSON,
    "qwen3.8": _JSON,
    "qwen3-coder-2507": _PYTHON,
    "hermes": _JSON,
}
#: The spellings of released templates and grammar-bound engines, all of which are read if no string is
#: possible.
_BOOLEANS: Final = {
    "true": True, "True": True, "TRUE": True, "1": True,
    "false": False, "False": False, "FALSE": False, "0": False,
}  # fmt: skip
_NULLS: Final = ("null", "None")
_CONTAINERS: Final = frozenset({"object", "array"})
_INTEGER: Final = re.compile(r"(-?[0-9]++)(?:\.0++)?+", re.ASCII)


class Refused(ValueError):
    """The text gives no value that fits.

    Attributes:
        issues: the reasons, each with a JSON pointer into the value."""

    def __init__(self, issues: list[Issue]) -> None:
        super().__init__(issues[0].message)
        self.issues = issues


#: Keywords that assert nothing about a text.
_NOTES: Final = frozenset(("type", "title", "description", "default", "examples", "format"))


@dataclass(frozen=True, slots=True)
class Slot:
    """What the reader must know about one parameter.

    Attributes:
        types: the possible JSON types in declared order; None if the schema does not restrict them.
        validator: decides whether a value fits.
        plain: every text is a value as it stands.
        enumerated: the values are a closed list.
        textual: free text can be the value, so that tags may stand in it.
        holds_containers: JSON objects or arrays are possible.
        containers_only: nothing but JSON objects or arrays is possible."""

    types: tuple[str, ...] | None
    validator: Validator
    plain: bool
    enumerated: bool
    textual: bool
    holds_containers: bool
    containers_only: bool


def compile_slot(document: SchemaDocument, values: PossibleValues, *schemas: Any) -> Slot:
    """Return the slot of a parameter.

    Args:
        document: the prepared schema of the tool's parameters.
        values: what its parts let through.
        schemas: parts of it, any of which may describe the value."""
    schema = schemas[0] if len(schemas) == 1 else None
    types = values.types(*schemas)
    bare = isinstance(schema, dict) and schema.keys() <= _NOTES
    containers = _CONTAINERS.intersection(types or ())
    return Slot(
        types=types,
        validator=document.validator(*schemas),
        plain=schema is True or (bare and types in (None, ("string",))),
        enumerated=values.are_listed(*schemas),
        textual=types is None or "string" in types,
        holds_containers=bool(containers),
        containers_only=bool(containers) and containers == set(types or ()),
    )


def read(slot: Slot, text: str, dialect: Dialect = "auto", lenient: bool = False) -> tuple[Any, list[str]]:
    """Read `text` as the value of a parameter.

    Args:
        slot: the compiled schema of the parameter.
        text: the value as it was written.
        dialect: how scalars are spelled beside strings.
        lenient: whether repairs are allowed.

    Returns:
        The value and the names of the repairs that it needed.

    Raises:
        Refused: if no reading of the text fits the schema."""
    if slot.plain:
        return text, []
    candidates = _Candidates(slot, text, dialect, lenient)
    rejected: list[Issue] = []
    for value, repairs in candidates.values():
        if slot.validator.is_valid(value):
            return value, repairs
        rejected = rejected or slot.validator.issues(value)
    raise Refused(rejected or candidates.complaints or [_mismatch(slot, text)])


def _mismatch(slot: Slot, text: str) -> Issue:
    types = " or ".join(slot.types or ("a value",))
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    return Issue("", "type", f"{types} expected, got the text {shown}")


Candidate = tuple[Any, list[str]]


def _mended(candidate: Candidate) -> bool:
    return bool(candidate[1])


class _Candidates:
    """The readings of one text for one slot, best first."""

    def __init__(self, slot: Slot, text: str, dialect: Dialect, lenient: bool) -> None:
        self.types = slot.types if slot.types is not None else ("string",)
        self.text = text
        self.enumerated = slot.enumerated
        self.bare = text if "string" in self.types else text.strip(BLANKS)
        self.dialect = dialect
        self.lenient = lenient
        self.complaints: list[Issue] = []

    def values(self) -> list[Candidate]:
        candidates: list[Candidate] = [*self.words(), *self.containers()]
        for name in self.types:
            if name == "string":
                candidates.append((self.text, []))
            elif name in ("integer", "number"):
                candidates += self.numbers(name)
        if self.enumerated and self.text != self.text.strip(BLANKS):
            candidates.append((self.text.strip(BLANKS), []))  # grammar-bound engines write blanks there
        candidates.sort(key=_mended)  # lenient reading must prefer what strict reading accepts
        return candidates

    def words(self) -> list[Candidate]:
        """Read null and booleans. Beside a string only the dialect's own spelling counts, without outer
        blanks."""
        if "string" in self.types:
            spelled = WORDS[self.dialect]
            if self.text not in spelled:
                return []
            value = spelled[self.text]
            return [(value, [])] if ("null" if value is None else "boolean") in self.types else []
        if self.bare in _NULLS:
            return [(None, [])] if "null" in self.types else []
        digits = "integer" in self.types or "number" in self.types
        if "boolean" in self.types and self.bare in _BOOLEANS and not (digits and self.bare in ("0", "1")):
            return [(_BOOLEANS[self.bare], [])]
        return []

    def numbers(self, name: str) -> list[Candidate]:
        """Read the text as a number. Leading zeros are read only if no string is possible, since no
        template writes a number like that."""
        if "string" in self.types and not is_number(self.text):
            return []
        try:
            if whole := _INTEGER.fullmatch(self.bare):
                value: int | float = number_of(whole.group(1))
                written = name == "number" and "." in self.bare
                return [(number_of(self.bare) if written and is_number(self.bare) else value, [])]
            if not is_number(self.bare):
                return []
            value = number_of(self.bare)
        except LiteralError as bad:
            self.complain(bad)
            return []
        return [(value, [])] if name == "number" else self.exponent()

    def exponent(self) -> list[Candidate]:
        """Read an integer written with an exponent (lenient), computed exactly."""
        exact = Decimal(self.bare) if self.lenient and len(self.bare) <= MAX_DIGITS else Decimal("0.5")
        return [(int(exact), ["integer_from_exponent"])] if exact == exact.to_integral_value() else []

    def containers(self) -> list[Candidate]:
        if not _CONTAINERS.intersection(self.types):
            return []
        try:
            value, repairs = load_mended(self.text, self.lenient)
        except LiteralError as bad:
            return self.python_literal(self.bare, bad)
        if type(value) is dict or type(value) is list:
            return [(value, repairs)]
        return self.inner(value)

    def python_literal(self, text: str, bad: LiteralError) -> list[Candidate]:
        """Read the text as Python's repr, which the first Qwen3-Coder template writes; elsewhere a
        repair."""
        own = self.dialect == "qwen3-coder-2507"
        closed = text.rstrip(BLANKS).endswith(("]", "}"))
        if not (closed and (own or self.lenient)) or bad.code in (
            "duplicate_key",
            "not_finite",
            "too_deep",
            "too_many_digits",
        ):
            self.complain(bad)
            return []
        try:
            return [(load_python(text), [] if own else ["python_literal"])]
        except LiteralError:
            self.complain(bad)  # the text is nearer to JSON, so its error is the one to show
            return []

    def inner(self, value: Any) -> list[Candidate]:
        """Read a container that was written as JSON inside a JSON string (lenient)."""
        if not self.lenient or type(value) is not str:
            return []
        try:
            return [(load_json(value), ["double_encoded"])]
        except LiteralError as bad:
            return [(inner, ["double_encoded", *names]) for inner, names in self.python_literal(value, bad)]

    def complain(self, bad: LiteralError) -> None:
        self.complaints.append(Issue("", bad.code, str(bad)))
