"""Hold a conversation with a model: free text and pictures, without a schema.

Guarantees:
- The history holds what was asked and what was answered, as far as it was answered; a question that failed leaves it as
  it was.
- Control tokens in questions and answers are text (`dfkdata.rows.control_tokens`), because each question is rendered as
  a row is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.config import Config
from dfkdata.common.faults import Stopped
from dfkeval.backends import Backend, Streaming
from dfkeval.models import metadata
from dfkeval.types import Completion, Request, Sampling


class _Over(Exception):
    """Nobody listens any more to an answer that still comes."""


@dataclass(frozen=True)
class ChatReply:
    """What came of one question.

    Attributes:
        text: The answer, as far as it was written.
        error: Why there is none; None if there is one.
        stopped: Whether Ctrl-C ended it.
        cut: Whether it ended at its token limit.
    """

    text: str
    error: str | None = None
    stopped: bool = False
    cut: bool = False


class Dialogue:
    """Questions and answers in turn.

    Args:
        backend: A loaded backend.
        sampling: How text is drawn.
        system: Text of the system turn; empty for none.
    """

    def __init__(self, backend: Backend, sampling: Sampling, system: str = "") -> None:
        self.backend, self.sampling, self.system = backend, sampling, system
        self.turns: list[dict[str, Any]] = []
        self.images: tuple[str, ...] = ()

    def reset(self) -> None:
        """Forget all turns; the system turn stays."""
        self.turns, self.images = [], ()

    def ask(
        self, text: str, images: Sequence[Path] = (), listen: Callable[[str], None] = lambda text: None
    ) -> ChatReply:
        """Ask the next question.

        Args:
            text: The question.
            images: Pictures that it shows, before its text.
            listen: Gets the whole answer so far, each time that it has grown.
        """
        turn = {"role": "user", "content": [*({"type": "image"} for _ in images), _part(text)]}
        shown = (*self.images, *map(str, images))
        system = [{"role": "system", "content": [_part(self.system)]}] if self.system else []
        number = sum(each["role"] == "user" for each in self.turns) + 1
        request = Request(id=str(number), messages=[*system, *self.turns, turn], images=shown)
        reply = self._answered(request, listen)
        if reply.text:
            self.turns += [turn, {"role": "assistant", "content": [_part(reply.text)]}]
            self.images = shown
        return reply

    def _answered(self, request: Request, listen: Callable[[str], None]) -> ChatReply:
        written, over = "", False

        def heard(text: str) -> None:
            nonlocal written
            if over:
                raise _Over
            if text != written:
                written = text
                listen(text)

        try:
            if isinstance(self.backend, Streaming):
                self.backend.listen = heard
            with closing(self.backend.generate([request], self.sampling)) as answers:  # type: ignore[type-var]
                completion: Completion = next(answers)
        except (KeyboardInterrupt, Stopped) as error:
            over = True
            if isinstance(error, Stopped) and error.number != signal.SIGINT:
                raise
            return ChatReply(written, stopped=True)
        if completion.error is not None:
            return ChatReply("", error=completion.error)
        heard(completion.text)
        return ChatReply(completion.text, cut=completion.finish_reason == "length")


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def default_sampling(backend: Config) -> Sampling:
    """Return greedy sampling with as much thinking as the model was trained with."""
    folder = metadata.folder_of(getattr(backend, "model", None), getattr(backend, "adapter", None))
    trained = metadata.read(folder) if folder is not None else None
    if trained is None or not trained.thinking:
        return Sampling()
    return Sampling(thinking=True, reasoning_effort=trained.reasoning_effort)
