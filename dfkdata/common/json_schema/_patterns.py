"""Translate regular expressions of ECMA-262, in which JSON Schema writes `pattern`, into those of the engine.

How it works: a pattern is read as JavaScript reads it with the flag `u`, and where that refuses it, as without the
flag if only one meaning is possible (`\\<`, a lone `{`). Each character is written so that the engine cannot take it
for anything else. What has no equal there, or another meaning in another language (`\\A`, `(?>…)`), is refused by name.

Patterns without `(?=…)`, `(?<=…)` and back references run on an engine that always takes linear time."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TOP: Final = 0x10FFFF
_DIGITS: Final = ((48, 57),)
_WORD: Final = ((48, 57), (65, 90), (95, 95), (97, 122))
#: White space and line ends, with the byte order mark.
_SPACE: Final = (
    (9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_LINE_ENDS: Final = ((10, 10), (13, 13), (0x2028, 0x2029))
_SETS: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_SYNTAX: Final = "^$\\.*+?()[]{}|/"
_LOOKS: Final = ("(?=", "(?!", "(?<=", "(?<!")
_QUANTIFIER: Final = re.compile(r"[*+?]|\{([0-9]+)(,([0-9]*))?\}")
#: Turns of counts within counts, `((a{1,20}){1,20})`: the engine may be in as many states at each character.
_MOST_TURNS: Final = 10_000
_NAME: Final = re.compile(r"[^\W\d]\w*")
#: Values of General_Category and binary properties that ECMA-262 and the engine both know.
_CATEGORIES: Final = frozenset(
    "C Other Cc Control cntrl Cf Format Cn Unassigned Co Private_Use Cs Surrogate L Letter LC Cased_Letter Ll "
    "Lowercase_Letter Lm Modifier_Letter Lo Other_Letter Lt Titlecase_Letter Lu Uppercase_Letter M Mark "
    "Combining_Mark Mc Spacing_Mark Me Enclosing_Mark Mn Nonspacing_Mark N Number Nd Decimal_Number digit Nl "
    "Letter_Number No Other_Number P Punctuation punct Pc Connector_Punctuation Pd Dash_Punctuation Pe "
    "Close_Punctuation Pf Final_Punctuation Pi Initial_Punctuation Po Other_Punctuation Ps Open_Punctuation S "
    "Symbol Sc Currency_Symbol Sk Modifier_Symbol Sm Math_Symbol So Other_Symbol Z Separator Zl Line_Separator Zp "
    "Paragraph_Separator Zs Space_Separator".split()
)
_BINARY: Final = frozenset(
    "ASCII ASCII_Hex_Digit AHex Alphabetic Alpha Any Assigned Bidi_Control Bidi_C Case_Ignorable CI Cased "
    "Changes_When_Casefolded CWCF Changes_When_Casemapped CWCM Changes_When_Lowercased CWL "
    "Changes_When_Titlecased CWT Changes_When_Uppercased CWU Dash Default_Ignorable_Code_Point DI Deprecated Dep "
    "Diacritic Dia Emoji Emoji_Component Emoji_Modifier Emoji_Modifier_Base Emoji_Presentation "
    "Extended_Pictographic Extender Ext Grapheme_Base Gr_Base Grapheme_Extend Gr_Ext Hex_Digit Hex ID_Continue "
    "IDC ID_Start IDS Ideographic Ideo Join_Control Join_C Lowercase Lower Math Noncharacter_Code_Point NChar "
    "Pattern_Syntax Pat_Syn Pattern_White_Space Pat_WS Quotation_Mark QMark Radical Regional_Indicator RI "
    "Sentence_Terminal STerm Soft_Dotted SD Terminal_Punctuation Term Unified_Ideograph UIdeo Uppercase Upper "
    "Variation_Selector VS White_Space space XID_Continue XIDC XID_Start XIDS".split()
)


class PatternError(ValueError):
    """A pattern has no equal in the engine; the message says which part of it."""


def needs_looks(pattern: str, draft: int) -> bool:
    """Return whether `pattern` may need the engine that looks around and back, which gives up on hard texts."""
    told = (
        r"\\[1-9k]|\(\?P=" if draft > 7 else r"\\[1-9kbB]|\(\?P="
    )  # drafts up to 7 take no other way to say \b
    return any(look in pattern for look in _LOOKS) or re.search(told, pattern) is not None


def translated(pattern: str, *, looks: bool) -> str:
    """Return `pattern` as the engine reads it.

    Args:
        pattern: a regular expression of ECMA-262.
        looks: whether the engine is the one that looks around.

    Raises:
        PatternError: if it is none, or cannot be said there."""
    return _Translation(pattern, looks).whole()


class _Group(NamedTuple):
    """An open group: how many captures stand before it, whether it looks around, and whether it captures."""

    before: int
    is_look: bool
    captures: bool


def _code(code: int) -> str:
    if 0xD800 <= code <= 0xDFFF:  # lone surrogates stand in a private plane
        code += 0x100000 - 0xD800
    sign = chr(code)
    return sign if sign == "_" or (sign.isascii() and sign.isalnum()) else f"\\u{{{code:X}}}"


def _ranges(ranges: tuple[tuple[int, int], ...], *, others: bool = False) -> str:
    """Return the inside of a class of `ranges`, or of all others."""
    if others:
        edges = [-1, *(edge for low, high in ranges for edge in (low, high)), _TOP + 1]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        ranges = tuple((low + 1, high - 1) for low, high in pairs if low + 1 <= high - 1)
    return "".join(_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in ranges)


_ANY: Final = f"[{_ranges((), others=True)}]"
_NOTHING: Final = f"[^{_ranges((), others=True)}]"
_DOT: Final = f"[{_ranges(_LINE_ENDS, others=True)}]"
_IN_WORD: Final = f"[{_ranges(_WORD)}]"
#: \b and \B of the engine that looks around, which knows the words of all alphabets only.
_BOUNDARIES: Final = {
    "b": f"(?:(?<={_IN_WORD})(?!{_IN_WORD})|(?<!{_IN_WORD})(?={_IN_WORD}))",
    "B": f"(?:(?<={_IN_WORD})(?={_IN_WORD})|(?<!{_IN_WORD})(?!{_IN_WORD}))",
}


class _Translation:
    """The state of one pattern."""

    def __init__(self, pattern: str, looks: bool) -> None:
        self.pattern = pattern
        self.looks = looks
        self.at = 0
        self.out: list[str] = []
        self.captures = 0
        self.names: dict[str, int] = {}
        self.groups: list[_Group] = []
        #: Captures that may hold nothing, or something else than in ECMA-262, where a reference is read.
        self.unsure: set[int] = set()
        self.references: set[int] = set()
        #: How many captures stand before what a quantifier would repeat; None if there is nothing to repeat.
        self.atom: int | None = None
        #: The first part that JavaScript reads with the flag `u` only, and without it only; both are never meant.
        self.unicode = self.lenient = ""
        #: Groups, by how many are around them, that hold several alternatives.
        self.branched: set[int] = set()
        #: Turns of the last part, and of the parts of groups, by how many are around them.
        self.turns, self.inner_turns = 1, {0: 1}

    def whole(self) -> str:
        ignoring_case = self._skip("(?i)")
        while self.at < len(self.pattern):
            self._next()
        if self.groups:
            raise PatternError("a group is not closed")
        if self.unicode and self.lenient:
            raise PatternError(f"{self.lenient} has a meaning only where {self.unicode} has another one")
        if 0 in self.branched:
            self.unsure.update(range(1, self.captures + 1))
        if broken := sorted(self.references & self.unsure):
            raise PatternError(f"the back reference to group {broken[0]}, which need not have matched")
        return f"(?i:{''.join(self.out)})" if ignoring_case else "".join(self.out)

    def _skip(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) if found else 0
        return found

    def _next(self) -> None:
        """Read one part of the pattern."""
        sign = self.pattern[self.at]
        if sign in "*+?{" and (quantifier := _QUANTIFIER.match(self.pattern, self.at)):
            self._quantifier(quantifier)
        elif sign == "(":
            self._open()
        elif sign == ")":
            self._close()
        elif sign in "^$|":
            self.at += 1
            self._write(sign, repeatable=False)
            if sign == "|":
                self._branch()
        elif sign == "[":
            self._write(self._class())
        elif sign == "\\":
            self._escape()
        else:
            if sign in "{}]":
                self._note(lenient=sign)
            code = self._character(in_class=False)
            self._write(_DOT if sign == "." else _code(code))

    def _note(self, *, lenient: str = "", unicode: str = "") -> None:
        self.lenient = self.lenient or lenient
        self.unicode = self.unicode or unicode

    def _write(self, text: str, *, repeatable: bool = True) -> None:
        self.out.append(text)
        self.atom = self.captures if repeatable else None
        self.turns = 1

    def _quantifier(self, found: re.Match[str]) -> None:
        low, _, high = found.groups()
        if self.atom is None:
            raise PatternError(f"nothing to repeat before {found.group()!r}")
        if high and int(low) > int(high):
            raise PatternError(f"the numbers of {found.group()!r} are out of order")
        turns = self.turns * max(1, int(high or low or 1))
        if turns > _MOST_TURNS and self.turns > 1:
            raise PatternError(
                f"counts within counts repeat a part up to {turns:,} times (at most {_MOST_TURNS:,})"
            )
        self._keep_turns(turns)
        self.at = found.end()
        self.out.append(found.group() + ("?" if self._skip("?") else ""))
        self.unsure.update(
            range(self.atom + 1, self.captures + 1)
        )  # what the last turn did not match is forgotten
        self.atom = None

    def _keep_turns(self, turns: int) -> None:
        depth = len(self.groups)
        self.inner_turns[depth] = max(self.inner_turns.get(depth, 1), turns)

    def _branch(self) -> None:
        self.branched.add(len(self.groups))

    def _open(self) -> None:
        before = self.captures
        for opener in ("(?:", "(?i:", "(?-i:", *_LOOKS[:2], *_LOOKS[2:]):
            if self._skip(opener):
                self.groups.append(_Group(before, opener in _LOOKS, captures=False))
                self._write(opener, repeatable=False)
                return
        if self._skip("(?P=") or self._skip("(?P>"):
            raise PatternError("(?P=name) is written \\k<name>")
        if self._skip("(?<") or self._skip("(?P<"):
            self.captures += 1
            name = self._name()
            if name in self.names:
                raise PatternError(f"two groups are named {name!r}")
            self.names[name] = self.captures
        elif self.pattern.startswith("(?", self.at):
            raise PatternError(f"{self.pattern[self.at : self.at + 3]} begins no group of ECMA-262")
        else:
            self.at += 1
            self.captures += 1
        self.groups.append(_Group(before, is_look=False, captures=True))
        self._write("(", repeatable=False)

    def _name(self) -> str:
        name = _NAME.match(self.pattern, self.at)
        if name is None or not self.pattern.startswith(">", name.end()):
            raise PatternError("the name of a group is no name")
        self.at = name.end() + 1
        return name.group()

    def _close(self) -> None:
        if not self.groups:
            raise PatternError("a group is closed that is not open")
        depth = len(self.groups)
        group = self.groups.pop()
        self.at += 1
        inner = range(group.before + 1 + group.captures, self.captures + 1)
        if group.is_look or depth in self.branched:
            self.unsure.update(inner)
        self.branched.discard(depth)
        self._write(")", repeatable=not group.is_look)
        self.atom = None if group.is_look else group.before
        self.turns = self.inner_turns.pop(depth, 1)
        self._keep_turns(self.turns)

    def _escape(self) -> None:
        if self.at + 1 == len(self.pattern):
            raise PatternError("a backslash ends it")
        sign = self.pattern[self.at + 1]
        if sign in _BOUNDARIES:
            self.at += 2
            self._write(_BOUNDARIES[sign] if self.looks else f"(?-u:\\{sign})", repeatable=False)
        elif sign in "123456789":
            digits = re.compile("[0-9]+").match(self.pattern, self.at + 1)
            assert digits is not None
            self.at = digits.end()
            self._reference(int(digits.group()))
        elif self._skip("\\k<"):
            name = self._name()
            if name not in self.names:
                raise PatternError(f"no group before it is named {name!r}")
            self._reference(self.names[name])
        elif (inside := self._set()) is not None:
            self._write(f"[{inside}]")
        else:
            self._write(_code(self._character(in_class=False)))

    def _reference(self, number: int) -> None:
        open_groups = {group.before + 1 for group in self.groups if group.captures}
        if number > self.captures or number in open_groups:
            raise PatternError(f"the back reference to group {number}, which does not end before it")
        self.references.add(number)
        self._write(f"(?:\\{number})")

    def _set(self) -> str | None:
        """Read an escape for many characters as the inside of a class; None if there is none here."""
        sign = self.pattern[self.at + 1]
        if sign.lower() in _SETS:
            self.at += 2
            return _ranges(_SETS[sign.lower()], others=sign.isupper())
        if sign not in "pP":
            return None
        found = re.compile(r"\\[pP]\{(?:(\w+)=)?(\w+)\}", re.ASCII).match(self.pattern, self.at)
        if found is None:
            raise PatternError(f"\\{sign} without a property in braces")
        kind, value = found.groups()
        if kind in ("General_Category", "gc"):
            known = value in _CATEGORIES
        else:
            known = kind in ("Script", "sc", "Script_Extensions", "scx") or value in _CATEGORIES | _BINARY
        if not known or (kind is not None and kind not in _KINDS):
            raise PatternError(f"{found.group()} is no property of Unicode that can be read")
        self.at = found.end()
        self._note(unicode=found.group())
        return f"\\{sign}{{{f'{_KINDS[kind]}=' if kind else ''}{value}}}"

    def _character(self, *, in_class: bool) -> int:
        """Read one character, or the escape of one, and return its code."""
        sign = self.pattern[self.at]
        self.at += 1
        if sign != "\\":
            if ord(sign) > 0xFFFF:
                self._note(unicode=sign)
            return ord(sign)
        if self.at == len(self.pattern):
            raise PatternError("a backslash ends it")
        sign = self.pattern[self.at]
        self.at += 1
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if in_class and sign == "b":
            return 8
        if sign in _CODED and (found := _CODED[sign].match(self.pattern, self.at)):
            self.at = found.end()
            return self._coded(sign, found)
        if sign != "_" and sign.isalnum():
            raise PatternError(f"\\{sign} is no escape of ECMA-262")
        if sign not in _SYNTAX and not (in_class and sign == "-"):
            self._note(lenient=f"\\{sign}")
        return ord(sign)

    def _coded(self, sign: str, found: re.Match[str]) -> int:
        """Return the code behind `\\0`, `\\c`, `\\x` or `\\u`."""
        parts = [part for part in found.groups() if part]
        if sign in "0c":
            return ord(parts[0]) % 32 if parts else 0
        if found.group().startswith("{") or len(parts) == 2:
            self._note(unicode=f"\\{sign}{found.group()}")
        if len(parts) == 2:  # the two halves of one character
            high, low = (int(part, 16) for part in parts)
            return 0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00
        return int(parts[0], 16)

    def _class(self) -> str:
        """Read a class in brackets."""
        self.at += 1
        others = "^" if self._skip("^") else ""
        inside: list[str] = []
        while not self._skip("]"):
            if self.at >= len(self.pattern):
                raise PatternError("a bracket is not closed")
            first = self._member()
            ranged = self.pattern.startswith("-", self.at) and not self.pattern.startswith("-]", self.at)
            if not ranged or self.at + 1 >= len(self.pattern):
                inside.append(first if isinstance(first, str) else _code(first))
                continue
            self.at += 1
            last = self._member()
            if isinstance(first, int) and isinstance(last, int):
                if first > last:
                    raise PatternError(f"the range {chr(first)}-{chr(last)} is out of order")
                inside.append(f"{_code(first)}-{_code(last)}")
            else:  # the hyphen is one
                self._note(lenient="a hyphen behind or before a set")
                inside += [each if isinstance(each, str) else _code(each) for each in (first, ord("-"), last)]
        if not inside:
            return _ANY if others else _NOTHING
        return f"[{others}{''.join(inside)}]"

    def _member(self) -> str | int:
        """Read one member of a class: the inside of a class of its own, or a code."""
        if self.pattern[self.at] == "\\" and self.at + 1 < len(self.pattern):
            inside = self._set()
            if inside is not None:
                return inside
        return self._character(in_class=True)


_KINDS: Final = {
    "General_Category": "gc", "gc": "gc", "Script": "sc", "sc": "sc", "Script_Extensions": "scx", "scx": "scx",
}  # fmt: skip
#: What follows the sign of an escape that names a code.
_CODED: Final = {
    "0": re.compile("(?![0-9])"),
    "c": re.compile("([A-Za-z])"),
    "x": re.compile("([0-9A-Fa-f]{2})"),
    "u": re.compile(
        r"([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})|([0-9A-Fa-f]{4})"
        r"|\{0*(10[0-9A-Fa-f]{4}|[0-9A-Fa-f]{1,5})\}"
    ),
}
