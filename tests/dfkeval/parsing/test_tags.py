"""The tags have one home: the pattern of the parser finds each of them, and no other module spells one."""

import ast
import re
from pathlib import Path

import dfkeval
from dfkeval.parsing import tags
from dfkeval.parsing.toolcall import _patterns

SPELLED = re.compile(r"</?(?:think|tool_call|function|parameter)[>=]|<\|(?:im_end|endoftext)\|>")
#: Modules that may spell tags: patterns over all of them, other programs' decoders, test data for users.
EXCEPTED = {"parsing/tags.py", "parsing/toolcall/_patterns.py", "parsing/toolcall/_scanner.py"} | {
    "parsing/legacy.py", "testing/strategies.py", "testing/roundtrip.py",
}  # fmt: skip


def test_the_patterns_find_every_tag() -> None:
    kinds = {
        tags.parameter_open("a"): _patterns.P_OPEN,
        tags.PARAMETER_CLOSE: _patterns.P_CLOSE,
        tags.function_open("f"): _patterns.F_OPEN,
        tags.FUNCTION_CLOSE: _patterns.F_CLOSE,
        tags.TOOL_CALL_OPEN: _patterns.C_OPEN,
        tags.TOOL_CALL_CLOSE: _patterns.C_CLOSE,
    }
    for tag, kind in kinds.items():
        match = _patterns.TOKEN.fullmatch(tag)
        assert match is not None and match.lastindex == kind
    for tag in (tags.TOOL_CALL_OPEN, tags.THINK_OPEN, tags.THINK_CLOSE, *tags.TURN_ENDS):
        assert _patterns.OUTSIDE.fullmatch(tag)


def test_no_other_module_spells_a_tag_in_its_code() -> None:
    room = Path(dfkeval.__file__).parent
    spelled = []
    for path in sorted(room.rglob("*.py")):
        name = path.relative_to(room).as_posix()
        if name in EXCEPTED:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and SPELLED.fullmatch(text.strip()):
                spelled.append(f"{name}:{text!r}")
    assert not spelled
