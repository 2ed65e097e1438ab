"""Find the tags of a text, each kind with one pattern.

Every pattern takes linear time on every text: literals, negated character classes and possessive repeats
only. A name never holds '<', '>' or a newline, so a parameter with one of them in its name cannot be
written in this format."""

from __future__ import annotations

import re
from typing import Final

#: Token kinds: the number of the group in TOKEN that matched.
P_OPEN: Final = 1
P_CLOSE: Final = 2
F_OPEN: Final = 3
F_CLOSE: Final = 4
C_OPEN: Final = 5
C_CLOSE: Final = 6
#: A misspelled closer (`</parameter1>`, `</param>`, `</function_call>`, `</parameter/>`, `</ Parameter>`,
#: `<\\/parameter>`), or one without its '>'.
DRIFT: Final = 7
#: `<function` that is not `<function=NAME>`: an attribute form, a name that never ends.
BAD_F_OPEN: Final = 8

#: One tag, its rest in the group of its kind, and the blanks behind it. The '<' stands outside of the groups
#: so that searching for it is a search for one character.
TOKEN: Final = re.compile(
    r"<(?:(parameter=[^<>\n]++>)|(/parameter>)|(function=[^<>\n]++>)|(/function>)|(tool_call>)|(/tool_call>)"
    r"|([ \t\\]{0,4}+/[ \t]{0,4}+(?i:param|func|tool_?call)(?:[^<>\n/]{0,32}+/?+>|[^\s<>/]*+))|(function))[ \t\r\n]*+"
)

#: Behind a first backtick, the rest of Markdown code that is closed and holds no '<', so that nothing in it
#: can matter: a span of one or two backticks on one line, or a fence of three. A failed attempt stops at a
#: '<', a line's end or another fence, and no two attempts cross the same text: that keeps it linear.
_CODE: Final = (
    r"(?:(?!`)(?:[^`<\n]++|``++)++`(?!`)"
    r"|`(?!`)(?:[^`<\n]++|`(?!`)|```++)++``(?!`)"
    r"|(?<![^\n]`)``(?!`)[^`<\n]*+\n(?:(?! {0,3}```)[^<\n]*+\n)*+ {0,3}```++[ \t]*+(?![^\n]))"
)
#: What can end plain text outside of calls. Each alternative begins with its own character, outside of its
#: group, so that plain text is searched for these three characters only.
OUTSIDE: Final = re.compile(
    r"<(?:(tool_call>)|(function=)|(/parameter>)|(/think>)|(think>)|(\|(?:im_end|endoftext)\|>))"
    rf"|`(?:({_CODE}(?:[^<`~]*+`{_CODE})*+)|(`*+))|~~~(~*+)"
)
O_CALL: Final = 1
O_FUNCTION: Final = 2
O_CLOSER: Final = 3
O_THINK_CLOSE: Final = 4
O_THINK_OPEN: Final = 5
O_TURN_END: Final = 6
O_CODE: Final = 7
O_TICKS: Final = 8
O_TILDES: Final = 9

#: A `</think>` as templates write it: at the start of a line, and nothing else on its line.
THINK_END: Final = re.compile(r"(?:(?<=\n)|\A)</think>(?=[ \t]*+(?:\n|\Z|<tool_call>))")
CALL_START: Final = re.compile(r"<tool_call>\s*+<function=")
