"""Answers that are used again, by content: around any backend that can say what its answers depend on.

Strategy: the key is the hash of everything that decides an answer: the weights' and the adapter's hashes, the
template, the rendered prompt, each image after resizing, every generation setting, the constraint, the seed
and the number of the draw. Row ids and file names are no part of it. One file an answer, written whole, so
several processes may share a folder without a lock. Promises: only finished answers are kept, never a failed
request, an answer that was cut or a think block that was not closed; a server's answers are kept only where
its `revision` is declared, since nothing else says what it runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import structs

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.backends import Backend, Cacheable
from dfkeval.types import Completion, Request, Sampling

FORMAT = 1


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One kept answer; `key` is that of its file's name."""

    format: int = FORMAT
    key: str
    completion: Completion


class CachedBackend:
    """A backend that asks `backend` only what `folder` does not hold."""

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
        """Kept answers first, then what the backend answers to the rest."""
        missing: list[Request] = []
        keys: dict[str, str] = {}
        for request in requests:
            name = self._key(request, sampling)
            found = None if name is None else self.read(name)
            if found is not None:
                yield structs.replace(found, id=request.id, cached=True)
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
        """Free the backend."""
        self.backend.close()

    def _key(self, request: Request, sampling: Sampling) -> str | None:
        """None for a request whose images cannot be read: the backend says why."""
        try:
            shown = self.backend.fingerprint(request, sampling)
        except DataError:
            return None
        return key(self.identity, shown, request, sampling)

    def read(self, name: str) -> Completion | None:
        """The kept answer, None without one. Raises `DataError` for a file that is no answer."""
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
        """Keep an answer; whole or not at all. Raises `ConfigError` where it cannot be written."""
        path = self._path(name)
        part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(msgspec.json.encode(CachedAnswer(key=name, completion=completion)))
            part.replace(path)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cache {folder}: cannot be written ({error.strerror}); name another folder")


def finished(completion: Completion) -> bool:
    """Whether this is an answer that may be used again."""
    return completion.error is None and completion.finish_reason == "stop" and not completion.unclosed_think


def key(identity: dict[str, Any], shown: dict[str, Any], request: Request, sampling: Sampling) -> str:
    """The hash of all that decides an answer. How often a row is drawn does not decide any one draw."""
    settings = sampling.model_dump(mode="json", exclude={"repeats"})
    asked = (request.draw_index, request.constraint, request.slot, request.force_tool)
    material = msgspec.json.encode((FORMAT, identity, shown, settings, asked), order="sorted")
    return hashlib.sha256(material).hexdigest()
