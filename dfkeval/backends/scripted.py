"""Play answers back from a JSONL file of {"id", "text"}, for tests, scoring again, and other tools' outputs.

Guarantees:
- An id that the file lacks is a failed request, never an empty answer.
- An id that is written twice is an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dfkdata.common import config
from dfkdata.common.errors import DataError
from dfkdata.common.stored_lines import StoredById, StoredLines
from dfkeval.backends._contract import Backend, Capabilities
from dfkeval.types import Completion, Request, Sampling

CAPABILITIES = Capabilities(parallel=True, scales_images=True)


class Config(config.Config):
    """What users write under `backend:`.

    Args:
        completions: JSONL of {"id", "text"} and, if known, finish_reason, n_output_tokens and error.
    """

    kind: Literal["scripted"] = "scripted"
    completions: Path


def start(config: Config) -> Backend:
    """Read the file. Raises `DataError` that names the line which is not a completion."""
    return Scripted(read(config.completions), source=str(config.completions))


def read(path: Path) -> Mapping[str, Completion]:
    """Return the completions of a JSONL file by id, which stay in it. Raises `DataError` for a file that is not one."""
    decoder, places = msgspec.json.Decoder(Completion), dict[str, int]()

    def completion(line: bytes, number: int) -> Completion:
        try:
            return decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(
                f'{path}:{number}: not a completion ({error}); write {{"id": …, "text": …}}'
            ) from error

    try:
        completions = StoredLines(path, completion)
        for place, (number, line) in enumerate(completions.scan()):
            name = completion(line, number).id
            if name in places:
                raise DataError(f"{path}:{number}: the id {name!r} is written twice")
            places[name] = place
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a JSONL file of id and text"
        ) from error
    return StoredById(completions, places)


class Scripted:
    """A backend that plays `completions` back."""

    capabilities = CAPABILITIES

    def __init__(self, completions: Mapping[str, Completion], source: str = "memory") -> None:
        self.completions = completions
        self.info: dict[str, Any] = {"kind": "scripted", "source": source, "completions": len(completions)}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the stored answer of each request, in the order of the requests."""
        for request in requests:
            missing = Completion(
                id=request.id,
                text="",
                finish_reason="error",
                error=f"no completion with id {request.id!r} in the file",
            )
            yield self.completions.get(request.id, missing)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
