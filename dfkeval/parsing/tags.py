"""Name the tags of Qwen3-Coder and Qwen3.5 answers: think blocks, tool calls and ends of turn.

    <think>\\nREASONING\\n</think>\\n\\n
    <tool_call>\\n<function=NAME>\\n[<parameter=KEY>\\nVALUE\\n</parameter>\\n]*</function>\\n</tool_call>

Every module that reads or writes a tag takes it from here."""

from __future__ import annotations

from typing import Final

TOOL_CALL_OPEN: Final = "<tool_call>"
TOOL_CALL_CLOSE: Final = "</tool_call>"
#: The beginning of `<function=NAME>`; `function_open` writes the whole tag.
FUNCTION_START: Final = "<function="
FUNCTION_CLOSE: Final = "</function>"
#: The beginning of `<parameter=NAME>`; `parameter_open` writes the whole tag.
PARAMETER_START: Final = "<parameter="
PARAMETER_CLOSE: Final = "</parameter>"
THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
#: Tags that stand in answers, and that some tokenizers mark as special.
ANSWER_TAGS: Final = frozenset({TOOL_CALL_OPEN, TOOL_CALL_CLOSE, THINK_OPEN, THINK_CLOSE})
IM_END: Final = "<|im_end|>"
END_OF_TEXT: Final = "<|endoftext|>"
#: Special tokens that end a turn; they stand behind the answer if a decoder does not skip special tokens.
TURN_ENDS: Final = (IM_END, END_OF_TEXT)


def function_open(name: str) -> str:
    """Return the opening tag of the function `name`."""
    return f"{FUNCTION_START}{name}>"


def parameter_open(name: str) -> str:
    """Return the opening tag of the parameter `name`."""
    return f"{PARAMETER_START}{name}>"
