"""Decide where a call may end, and with which repairs.

The functions look at tags only and note nothing."""

from __future__ import annotations

from typing import NamedTuple

from dfkeval.parsing.json_text import BLANKS
from dfkeval.parsing.tags import TOOL_CALL_CLOSE, TURN_ENDS
from dfkeval.parsing.toolcall._patterns import C_CLOSE, C_OPEN, F_OPEN
from dfkeval.parsing.toolcall._tags import END, TEXT, Tags


class Ending(NamedTuple):
    """A possible end of a call.

    Attributes:
        end: its offset.
        resume: index of the tag at which reading continues.
        repairs: names of the repairs that it needs.
        poison: the end of the wrapper is missing.
        shared: another function follows inside the same wrapper."""

    end: int
    resume: int
    repairs: tuple[str, ...] = ()
    poison: bool = False
    shared: bool = False


def function_end(tags: Tags, i: int, wrapped: bool, finished: bool) -> Ending | None:
    """Return the end of the call if tag `i`, a closer of the function, ends it."""
    if wrapped and tags.next[i] == C_CLOSE and not tags.drifted:
        return Ending(tags.ends[i + 1], i + 2)  # the usual case
    drift = ("drifted_closer",) if i in tags.drifted else ()
    if not wrapped:
        return _bare_end(tags, i, drift)
    last = tags.run_end(i)
    repairs = (*drift, "stray_closer") if last > i else drift
    following = tags.next[last]
    if following == C_CLOSE:
        more = ("drifted_closer",) if last + 1 in tags.drifted and last + 1 != tags.cut else ()
        if last + 1 != tags.cut:
            return Ending(tags.ends[last + 1], last + 2, (*repairs, *more))
    if following == F_OPEN:
        return Ending(tags.ends[last], last + 1, (*repairs, "shared_tool_call"), shared=True)
    if following == C_OPEN and tags.opens_call(last + 1):
        return Ending(tags.ends[i], i + 1, (*repairs, "missing_close_tool_call"), poison=True)
    if finished and ended(tags, last):
        return Ending(tags.ends[last], last + 1, (*repairs, "missing_close_tool_call"))
    return None


def _bare_end(tags: Tags, i: int, drift: tuple[str, ...]) -> Ending:
    """Return the end of a call without `<tool_call>`, whose closer may stand there nevertheless."""
    if tags.next[i] == C_CLOSE and i + 1 != tags.cut:
        return Ending(tags.ends[i + 1], i + 2, (*drift, "missing_open_tool_call"))
    return Ending(tags.ends[i], i + 1, (*drift, "missing_tool_call_tags"))


def ended(tags: Tags, i: int) -> bool:
    """Return whether the text or the turn ends behind tag `i`, perhaps within `</tool_call>`."""
    following = tags.next[i]
    if following == TEXT:
        near = tags.text[tags.ends[i] : tags.ends[i] + 80].lstrip(BLANKS)
        return near.startswith(TURN_ENDS) or cut_tail(tags.text, tags.ends[i], TOOL_CALL_CLOSE, least=1)
    return following == END or (following == C_CLOSE and i + 1 == tags.cut)


def cut_tail(text: str, start: int, tag: str, least: int = 2) -> bool:
    """Return whether the text from `start` on is blank or begins `tag` with at least `least` characters."""
    if len(text) - start > 200:
        return False
    tail = text[start:].strip(BLANKS)
    return not tail or (len(tail) >= least and tag.startswith(tail))


def wrapper_end(tags: Tags, i: int) -> Ending | None:
    """Return the end of the call if tag `i`, a closer of the wrapper, ends it without a closer of the
    function."""
    if i == tags.cut or not (ended(tags, i) or tags.opens_call(i + 1)):
        return None
    drift = ("drifted_closer",) if i in tags.drifted else ()
    return Ending(tags.ends[i], i + 1, (*drift, "missing_close_function"))
