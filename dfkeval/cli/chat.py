"""`dfkeval chat`: talk to a model, a tuned one or one on a server, with text and pictures."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.common.console import examples, say, write
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.faults import Stopped
from dfkdata.common.status_line import STATUS, now
from dfkeval.cli import model_options
from dfkeval.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from dfkdata.common.config import Config
    from dfkeval.inference.chat import ChatReply, Dialogue

EXAMPLES = examples(
    "dfkeval chat --model tiny --adapter runs/first/adapter",
    "echo 'What do you see?' | dfkeval chat --model tiny --image photo.png",
)

PROMPT = "> "
COMMANDS = (
    "/image PATH shows a picture with the next question, /reset forgets the conversation, /quit ends it"
)


def chat_command(
    model: model_options.Model = None,
    adapter: model_options.Adapter = None,
    system: Annotated[str, typer.Option(help="Text of the system turn.")] = "",
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture of the first question. May be repeated.")
    ] = None,
    url: model_options.Url = None,
    key: model_options.Key = None,
    backend: model_options.BackendText = None,
    set_: model_options.Settings = None,
) -> None:
    """Talk to a model: free text and pictures, streamed; Ctrl-C stops an answer. Piped text is one question a line."""
    from dfkeval import backends
    from dfkeval.inference import backend_options
    from dfkeval.inference.chat import Dialogue, default_sampling

    quiet_libraries()
    config = _streaming(backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend))
    sampling = backend_options.changed(default_sampling(config), set_ or (), "--set")
    session = ChatSession(Dialogue(backends.start(config), sampling, system))
    for path in image or ():
        session.show(path)
    if session.faults:
        raise ConfigError(f"--image {session.faults[0]}")
    try:
        session.run()
    finally:
        session.talk.backend.close()
    if session.faults:
        raise typer.Exit(1)


def _streaming(config: Config) -> Config:
    """Return the configuration of a server's backend such that answers come while they are written."""
    return config.model_copy(update={"stream": True}) if "stream" in type(config).model_fields else config


class ChatSession:
    """The lines that come in, and what goes out.

    Attributes:
        talk: The conversation.
        images: Pictures of the next question.
        faults: What could not be done, in a pipe as at a terminal.
    """

    def __init__(self, talk: Dialogue) -> None:
        self.talk = talk
        self.images: list[Path] = []
        self.faults: list[str] = []

    def run(self) -> None:
        """Ask every line until the input or /quit ends it."""
        for line in _typed() if sys.stdin.isatty() else _piped():
            word, _, rest = line.strip().partition(" ")
            if word == "/quit":
                return
            if word == "/image":
                self.show(Path(rest.strip()).expanduser())
            elif word == "/reset":
                self.talk.reset()
                self.images = []
            elif word.startswith("/"):
                self._fault(f"{word}: no such command; {COMMANDS}")
            elif line.strip():
                self._ask(line)

    def show(self, path: Path) -> None:
        """Add a picture to the next question."""
        from dfkdata.media.images import open_image

        try:
            if not path.is_file():
                raise DataError("no such file")
            open_image(str(path))
        except DataError as error:
            self._fault(f"{path}: {error}")
            return
        self.images.append(path.resolve())

    def _fault(self, reason: str) -> None:
        self.faults.append(reason)
        say(f"dfkeval: {reason}")

    def _ask(self, line: str) -> None:
        printed = ""

        def listen(text: str) -> None:
            nonlocal printed
            whole = text.rstrip("\ufffd")  # the rest of a character is still to come
            if whole.startswith(printed):
                _written(whole[len(printed) :])
                printed = whole

        now("asks")
        STATUS.clear()
        reply = self.talk.ask(line, self.images, listen)
        self._end(reply, printed)
        if reply.error is None:
            self.images = []

    def _end(self, reply: ChatReply, printed: str) -> None:
        """Write what the listener has not, and why an answer is not whole."""
        rest = reply.text[len(printed) :] if reply.text.startswith(printed) else f"\n{reply.text}"
        write(f"{rest}\n")
        sys.stdout.flush()
        if reply.error is not None:
            self._fault(f"no answer: {reply.error}")
        elif reply.stopped:
            say("dfkeval: stopped; the answer stays in the conversation as far as it is written")
        elif reply.cut:
            say("dfkeval: cut at its token limit; --set max_new_tokens=1024 allows more")


def _written(text: str) -> None:
    """Write a part of a line that stays open, so that nothing else may be written behind it."""
    write(text)
    sys.stdout.flush()
    STATUS.clear(hold=True)


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def _typed() -> Iterator[str]:
    """Yield the lines that somebody types; Ctrl-C drops the line, Ctrl-D ends."""
    import readline  # noqa: F401 (editing keys and earlier lines)

    say(f"{COMMANDS}; Ctrl-C stops an answer")
    while True:
        STATUS.clear(hold=True)
        try:
            line = input(PROMPT)
        except EOFError:
            write("\n")
            return
        except (KeyboardInterrupt, Stopped) as error:
            if isinstance(error, Stopped) and error.number != signal.SIGINT:
                raise
            write("\n")
            continue
        yield line
