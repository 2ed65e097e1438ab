"""A backend for tests, named by its dotted path: some draws of a row are right, some wrong, some malformed;
and which adapter it was started with is written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from dfkdata.common import config
from dfkeval.backends import Capabilities
from dfkeval.types import Completion, Request, Sampling

ANSWERS = (
    "Label: Fitnah\n\nAnalisis: tidak benar.",
    "Label: Netral\n\nAnalisis: berita biasa.",
    "Label: Fitnah\n\nAnalisis: tidak benar.",
    "bukan jawaban",
)


class Config(config.Config):
    """log: file that gets a line a start: the adapter's path."""

    kind: Literal["tests.fakes.noisy"] = "tests.fakes.noisy"
    log: Path
    adapter: Path | None = None
    fail: str = ""
    stop_after: int = 1000


def start(config: Config) -> Any:
    with config.log.open("a", encoding="utf-8") as file:
        file.write(f"{config.adapter}\n")
    return Noisy(config)


class Noisy:
    capabilities = Capabilities()

    def __init__(self, config: Config) -> None:
        self.config = config
        self.info: dict[str, Any] = {"kind": "tests.fakes.noisy", "adapter": str(config.adapter)}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        for place, request in enumerate(requests):
            if place >= self.config.stop_after:
                raise KeyboardInterrupt
            if self.config.fail and request.id.startswith(self.config.fail):
                yield Completion(id=request.id, text="", finish_reason="error", error="no answer")
                continue
            reasoning = f"karena {request.id}" if sampling.thinking else None
            yield Completion(id=request.id, text=ANSWERS[request.draw_index], reasoning=reasoning)

    def close(self) -> None:
        """Nothing to free."""
