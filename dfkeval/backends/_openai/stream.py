"""Join a streamed answer of the chat protocol (server-sent events) into the answer that would have come
whole.

How it works: bytes are cut into events by the rules of the HTML standard's "Server-sent events" (a line ends
at CR, LF or both; an event at an empty line; comments keep connections open). Each event's deltas are added
to what came before, and the result goes through the same check as a whole answer. Connection and clock are
passed in.

Guarantees:
- The answer does not depend on how the bytes are cut.
- A stream that breaks, ends early, reports an error or is something else is `RequestFailed`, never half an
  answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dfkeval.backends._openai import response
from dfkeval.backends._openai.retry import RETRYABLE_STATUSES, RequestFailed

#: What is added to a request whose answer is to be streamed.
STREAM_OPTIONS = {"stream": True, "stream_options": {"include_usage": True}}
#: The event that ends a stream; what follows is not read.
DONE = b"[DONE]"
_TEXTS = ("content", "reasoning_content", "reasoning")
_STOPS = ("stop_reason", "matched_stop")


class Reply(NamedTuple):
    """A checked answer; `first` is the seconds to its first token, None if it came whole."""

    answer: dict[str, Any]
    first: float | None = None


def read(parts: Iterable[bytes], clock: Callable[[], float]) -> Reply:
    """Return the answer in the parts of a body; `clock` gives the seconds since the request. Raises
    `RequestFailed`."""
    joined, first = Joined(), None
    for data in events(parts):
        if data == DONE:
            break
        joined.add(_event(data))
        if first is None and joined.begun:
            first = clock()
    return Reply(response.shaped(joined.whole()), first)


def events(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each finished event, its lines joined by LF; other fields than data are not
    needed."""
    data: list[bytes] = []
    for line in _lines(parts):
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
    if data == [DONE]:  # some servers leave out the last empty line
        yield DONE


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends; a CR at the end of a part waits for an LF that may follow."""
    rest: list[bytes] = []
    after_cr = False
    for part in filter(None, parts):
        begun = part.removeprefix(b"\n") if after_cr else part
        after_cr = part.endswith(b"\r")
        *whole, last = begun.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield b"".join([*rest, line])
            rest = []
        rest.append(last)
    if any(rest):
        yield b"".join(rest)


def _event(data: bytes) -> dict[str, Any]:
    """Return one chunk. Raises `RequestFailed` if it is something else, or an error that the server
    reports."""
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise response.strange(f"an event of its stream is {data[:80]!r}") from error
    if not isinstance(chunk, dict):
        raise response.strange(f"an event of its stream is {data[:80]!r}")
    if chunk.get("error"):
        raise _reported(chunk["error"])
    return chunk


def _reported(fault: Any) -> RequestFailed:
    """Return an error that the server reports in its stream; if it names a status, that decides about another
    attempt."""
    code = fault.get("code") if isinstance(fault, dict) else None
    refused = isinstance(code, int) and 400 <= code < 500 and code not in RETRYABLE_STATUSES
    return RequestFailed(f"the stream ended with an error: {json.dumps(fault)[:300]}", retryable=not refused)


@dataclass
class Joined:
    """The deltas so far; `begun` says whether any text, reasoning or call has come."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    ending: dict[str, Any] = field(default_factory=dict)
    usage: Any = None
    begun: bool = False

    def add(self, chunk: dict[str, Any]) -> None:
        """Add one chunk. Raises `RequestFailed` if it has another shape."""
        self.usage = chunk.get("usage") or self.usage
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise response.strange(f"the choices of its stream are {choices!r:.80}")
        for choice in choices:
            if not choice.get("index"):
                self._choice(choice)

    def whole(self) -> dict[str, Any]:
        """Return the answer in the shape of one that came whole."""
        message: dict[str, Any] = {name: _characters("".join(pieces)) for name, pieces in self.texts.items()}
        if self.calls:
            message["tool_calls"] = [_call(self.calls[place]) for place in sorted(self.calls)]
        choice = {"message": message, "finish_reason": None, **self.ending}
        if self.logprobs:
            choice["logprobs"] = {"content": self.logprobs}
        return {"choices": [choice], "usage": self.usage}

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise response.strange(f"a delta of its stream is {delta!r:.80}")
        for name in _TEXTS:
            text = delta.get(name)
            if text is not None:
                self._text(name, text)
        for call in _listed(delta.get("tool_calls")):
            self._call(call)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            self.logprobs += _listed(logprobs.get("content"))
        if choice.get("finish_reason") is not None:
            stops = {name: choice[name] for name in _STOPS if name in choice}
            self.ending = {"finish_reason": choice["finish_reason"], **stops}

    def _text(self, name: str, text: Any) -> None:
        piece = response.text_of(text) or ""
        self.texts.setdefault(name, []).append(piece)
        self.begun = self.begun or bool(piece)

    def _call(self, delta: Any) -> None:
        """Add a call's delta to the call of its index; without one, to a new call if it brings a name, else
        to the last."""
        function = delta.get("function") if isinstance(delta, dict) else None
        if not isinstance(function, dict):
            raise response.strange(f"a call of its stream is {delta!r:.80}")
        place = delta.get("index")
        if place is None:
            last = max(self.calls, default=-1)
            place = last + 1 if function.get("name") or last < 0 else last
        if not isinstance(place, int):
            raise response.strange(f"the index of a call of its stream is {place!r:.80}")
        call = self.calls.setdefault(place, {"name": [], "arguments": []})
        for name, pieces in call.items():
            piece = function.get(name)
            if piece is not None and not (name == "name" and pieces == [piece]):  # some repeat the name
                pieces.append(piece)
        self.begun = True


def _listed(value: Any) -> list[Any]:
    """Return a list, empty for null. Raises `RequestFailed` if it is something else."""
    if value is None or isinstance(value, list):
        return value or []
    raise response.strange(f"a list of its stream is {value!r:.80}")


def _call(pieces: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the call of all its deltas; arguments that came as an object stay an object."""
    function = {name: _joined(deltas) for name, deltas in pieces.items()}
    return {"type": "function", "function": function}


def _joined(pieces: list[Any]) -> Any:
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0]
    if not all(isinstance(piece, str) for piece in pieces):
        raise response.strange(f"a call of its stream has the parts {pieces!r:.80}")
    return _characters("".join(pieces)) if pieces else None


def _characters(text: str) -> str:
    """Return a text in which the halves of a character (surrogates), which two deltas may bring, are
    joined."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
