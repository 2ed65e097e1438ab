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

from dfkeval.backends._openai import errors, response

#: What is added to a request whose answer is to be streamed.
STREAM_OPTIONS = {"stream": True, "stream_options": {"include_usage": True}}
#: The event that ends a stream; what follows is not read.
DONE = b"[DONE]"
#: The standard skips one byte-order mark at the head of a stream; some gateways write one before each event.
BOM = b"\xef\xbb\xbf"
_TEXTS = ("content", "reasoning_content", "reasoning")
_STOPS = ("stop_reason", "matched_stop")


class Reply(NamedTuple):
    """A checked answer; `first` is the seconds to its first token, None if it came whole."""

    answer: dict[str, Any]
    first: float | None = None


def read(
    parts: Iterable[bytes], clock: Callable[[], float], listen: Callable[[str], None] | None = None
) -> Reply:
    """Return the answer in the parts of a body.

    Args:
        parts: The parts.
        clock: Gives the seconds since the request.
        listen: Gets the text so far, reasoning and calls aside.

    Raises:
        RequestFailed: The stream is no whole answer.
    """
    joined, first = Joined(), None
    for data in events(parts):
        if data == DONE:
            break
        joined.add(_event(data))
        if first is None and joined.begun:
            first = clock()
        if listen is not None and "content" in joined.texts:
            listen(_characters("".join(joined.texts["content"])))
    return Reply(response.shaped(joined.whole()), first)


def events(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each finished event, its lines joined by LF; other fields than data are not
    needed."""
    data: list[bytes] = []
    for line in (line.removeprefix(BOM) for line in _lines(parts)):
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
    fault = errors.fault_of(chunk)
    if fault is not None:
        raise errors.reported(fault, "the stream ended with an error")
    return chunk


@dataclass
class Joined:
    """The deltas so far; `begun` says whether any text, reasoning or call has come."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: list[StreamedCall] = field(default_factory=list)
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
            message["tool_calls"] = [call.whole() for call in sorted(self.calls, key=lambda call: call.index)]
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
        if choice.get("finish_reason") not in (None, ""):
            response.ended(choice["finish_reason"])
            stops = {name: choice[name] for name in _STOPS if name in choice}
            self.ending = {"finish_reason": choice["finish_reason"], **stops}

    def _text(self, name: str, text: Any) -> None:
        piece = response.text_of(text) or ""
        self.texts.setdefault(name, []).append(piece)
        self.begun = self.begun or bool(piece)

    def _call(self, delta: Any) -> None:
        """Add a call's delta to the call that it goes on with, or begin a new one."""
        function = delta.get("function") if isinstance(delta, dict) else None
        if not isinstance(function, dict):
            raise response.strange(f"a call of its stream is {delta!r:.80}")
        index, name = delta.get("index"), delta.get("id") or None
        if index is not None and not isinstance(index, int):
            raise response.strange(f"the index of a call of its stream is {index!r:.80}")
        call = self._continued(index, name, function)
        if call is None:
            last = max((call.index for call in self.calls), default=-1)
            call = StreamedCall(last + 1 if index is None else index, name)
            self.calls.append(call)
        call.add(name, function)
        self.begun = True

    def _continued(self, index: int | None, name: Any, function: dict[str, Any]) -> StreamedCall | None:
        """Return the call that a delta goes on with; None if it begins one.

        Some servers give every call the index 0, or none, and some the same id, too: a name after arguments that
        another name has, or that are whole, begins a call."""
        call = self._named(index, name, function)
        if call is None or not function.get("name"):
            return call
        other = function["name"] != "".join(map(str, call.name))
        again = call.ended and bool(function.get("arguments") or call.bare)
        return None if call.arguments and (other or again) else call

    def _named(self, index: int | None, name: Any, function: dict[str, Any]) -> StreamedCall | None:
        """Return the last call of the delta's index that has its id, else the last one if one of the two has no
        id; without an index, a name belongs to no call but that of its id."""
        calls = [call for call in reversed(self.calls) if index is None or call.index == index]
        by_id = next((call for call in calls if name is not None and call.id == name), None)
        if by_id is not None or not calls or (index is None and function.get("name")):
            return by_id
        return calls[0] if None in (name, calls[0].id) else None


@dataclass
class StreamedCall:
    """The deltas of one call; `bare` says whether one came without the name, so that a name is no repetition."""

    index: int
    id: Any
    name: list[Any] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)
    bare: bool = False

    def add(self, name: Any, function: dict[str, Any]) -> None:
        """Add one delta; some servers repeat the name in each."""
        self.id = self.id or name
        self.bare = self.bare or not function.get("name")
        if function.get("name") is not None and self.name != [function["name"]]:
            self.name.append(function["name"])
        if function.get("arguments") is not None:
            self.arguments.append(function["arguments"])

    @property
    def ended(self) -> bool:
        """Whether the arguments are a whole JSON object."""
        if not all(isinstance(piece, str) for piece in self.arguments):
            return bool(self.arguments)
        try:
            return isinstance(json.loads("".join(self.arguments)), dict)
        except (ValueError, RecursionError):
            return False

    def whole(self) -> dict[str, Any]:
        """Return the call; arguments that came as an object stay an object."""
        if not self.name:
            raise response.strange(
                f"a call of its stream (id {self.id!r:.40}) has no name: {self.arguments!r:.80}"
            )
        function = {"name": _joined(self.name), "arguments": _joined(self.arguments)}
        return {"type": "function", "function": function}


def _listed(value: Any) -> list[Any]:
    """Return a list, empty for null. Raises `RequestFailed` if it is something else."""
    if value is None or isinstance(value, list):
        return value or []
    raise response.strange(f"a list of its stream is {value!r:.80}")


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
