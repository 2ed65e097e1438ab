"""Keep answers by content and use them again, around any backend whose answers can be told apart by content.

How it works: the key of an answer is the hash of everything that decides it: the backend's `AnswerIdentity`,
the rendered prompt, each image after resizing, every generation setting, the constraint, the seed and the
index of the draw. Row ids and file names are no part of it. Each answer is one file that is written whole, so
several processes may share a folder without a lock.

Guarantees:

- Only finished answers are kept: no failed request, no answer that was cut, no unclosed think block.
- A server's answers are kept only if its `revision` is declared, since nothing else says what it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import structs

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.json_files import write_bytes
from dfkeval.backends import Backend, Cacheable
from dfkeval.types import Completion, Request, Sampling

FORMAT = 1


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One kept answer; `key` is the name of its file."""

    format: int = FORMAT
    key: str
    completion: Completion


class CachedBackend:
    """A backend that asks another one only for answers that a folder does not hold.

    Args:
        backend: The backend to ask.
        folder: Folder of kept answers; it is created if it is missing.

    Raises:
        ConfigError: Nothing says what the backend answers with, or the folder cannot be written.
    """

    def __init__(self, backend: Backend, folder: Path) -> None:
        cacheable = cast(Cacheable, backend) if backend.capabilities.cacheable else None
        identity = None if cacheable is None or cacheable.identity is None else cacheable.identity.for_cache()
        if cacheable is None or identity is None:
            kind = backend.info.get("kind")
            raise ConfigError(
                f"cache: nothing says what backend {kind!r} answers with (no hash of weights, no revision); "
                "leave `cache` out"
            )
        self.backend = cacheable
        self.identity = identity
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self.info: dict[str, Any] = backend.info
        self.capabilities = replace(backend.capabilities, likelihoods=False)

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield kept answers first, then what the backend answers to the rest."""
        missing: list[Request] = []
        keys: dict[str, str] = {}
        for request in requests:
            name = self._key(request, sampling)
            stored = None if name is None else self.read(name)
            if stored is not None:
                yield structs.replace(stored, id=request.id, cached=True)
                continue
            missing.append(request)
            if name is not None:
                keys[request.id] = name
        if not missing:
            return
        for completion in self.backend.generate(missing, sampling):
            if completion.id in keys and finished(completion):
                self.write(keys[completion.id], completion)
            yield completion

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()

    def _key(self, request: Request, sampling: Sampling) -> str | None:
        """Return the key of a request; None if its images cannot be read, which the backend will say."""
        try:
            shown = self.backend.fingerprint(request, sampling)
        except DataError:
            return None
        return key(self.identity, shown, request, sampling)

    def read(self, name: str) -> Completion | None:
        """Return the kept answer, None if there is none. Raises `DataError` if the file is damaged."""
        path = self._path(name)
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=CachedAnswer)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise DataError(f"{path}: not a kept answer ({error}); delete the file") from error
        if entry.key != name or entry.format != FORMAT:
            raise DataError(f"{path}: belongs to another key or format; delete the file")
        return entry.completion

    def write(self, name: str, completion: Completion) -> None:
        """Keep an answer, whole or not at all. Raises `ConfigError` if it cannot be written."""
        path = self._path(name)
        try:
            entry = msgspec.json.encode(CachedAnswer(key=name, completion=completion))
            write_bytes(path, entry, shared=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cache {folder}: cannot be written ({error.strerror}); name another folder")


def finished(completion: Completion) -> bool:
    """Return whether an answer may be used again."""
    return completion.error is None and completion.finish_reason == "stop" and not completion.unclosed_think


def key(identity: dict[str, Any], shown: dict[str, Any], request: Request, sampling: Sampling) -> str:
    """Return the hash of all that decides an answer; how often a row is drawn decides no single draw."""
    settings = sampling.model_dump(mode="json", exclude={"repeats"})
    question = (request.draw_index, request.constraint, request.slot, request.force_tool)
    material = msgspec.json.encode((FORMAT, identity, shown, settings, question), order="sorted")
    return hashlib.sha256(material).hexdigest()
