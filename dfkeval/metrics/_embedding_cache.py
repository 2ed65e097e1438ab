"""Keep embeddings on disk, so that the references of every checkpoint are encoded once.

How it works: each model, layer and number type has a folder. In it, each process appends to a pair of files of its own
(numbers, and an index line for each text) and reads the files of all. Nothing is locked or rewritten.

Guarantees:

- A key holds the hashes of the weights and of the tokenizer, so embeddings of another model are never returned.
- A killed process leaves at most numbers without an index line, which nothing reads."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from dfkdata.common.errors import BackendError
from dfkdata.common.hashing import file_sha256
from dfkeval.models.text_encoder import TokenEmbeddings


class _Line(msgspec.Struct, frozen=True):
    """text: hash of the text. offset: in bytes. tokens, width: T and D. truncated: as in
    `TokenEmbeddings`."""

    text: str
    offset: int
    tokens: int
    width: int
    truncated: bool


class EmbeddingCache:
    """The stored embeddings of one encoder, by text."""

    def __init__(self, folder: Path, identity: str, layer: int, dtype: str) -> None:
        self.folder = folder / hashlib.sha256(f"{identity}|{layer}|{dtype}".encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self.known: dict[str, tuple[Path, _Line]] = {}
        self.maps: dict[Path, np.memmap[tuple[int], np.dtype[np.uint8]]] = {}
        for index in sorted(self.folder.glob("*.jsonl")):
            self._read(index)

    def _read(self, index: Path) -> None:
        decoder = msgspec.json.Decoder(_Line)
        numbers = index.with_suffix(".bin")
        for line in index.read_bytes().split(b"\n")[:-1]:
            entry = decoder.decode(line)
            self.known[entry.text] = (numbers, entry)

    def get(self, text: str) -> TokenEmbeddings | None:
        """Return the stored embeddings of a text; None if there are none."""
        entry = self.known.get(_key(text))
        if entry is None:
            return None
        path, line = entry
        if path not in self.maps or len(self.maps[path]) < line.offset + _size(line.tokens, line.width):
            self.maps[path] = np.memmap(path, dtype=np.uint8, mode="r")
        data = self.maps[path][line.offset : line.offset + _size(line.tokens, line.width)]
        ids, special, vectors = np.split(data, (4 * line.tokens, 5 * line.tokens))
        table = np.frombuffer(vectors.tobytes(), dtype=np.float32).reshape(line.tokens, line.width)
        return TokenEmbeddings(
            np.frombuffer(ids.tobytes(), np.int32), table, special.astype(np.bool_), line.truncated
        )

    def put(self, text: str, encoded: TokenEmbeddings) -> None:
        """Store the embeddings of a text; the numbers are on disk before their index line."""
        numbers = self.folder / f"{self.name}.bin"
        with numbers.open("ab") as file:
            offset = file.tell()
            file.write(encoded.ids.astype(np.int32).tobytes())
            file.write(encoded.special.astype(np.uint8).tobytes())
            file.write(encoded.vectors.astype(np.float32).tobytes())
        tokens, width = encoded.vectors.shape
        line = _Line(_key(text), offset, tokens, width, encoded.truncated)
        with numbers.with_suffix(".jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
        self.known[line.text] = (numbers, line)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _size(tokens: int, width: int) -> int:
    """Return the bytes of one text: ids, marks of special tokens, vectors."""
    return tokens * (4 + 1 + 4 * width)


def identity(model: str) -> str:
    """Return what the numbers of a model depend on: the hash of a folder's weights and tokenizer, or a hub commit.

    Raises:
        BackendError: A hub name has not been downloaded yet.
    """
    folder = Path(model)
    if folder.is_dir():
        return _folder_identity(str(folder.resolve()), _stamp(folder))
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(model, "config.json")
    if not isinstance(path, str):
        raise BackendError(
            f"BERTScore model {model!r} is not on this machine yet; score once without a cache"
        )
    return f"{model}@{Path(path).parent.name}"


_FILES = ("*.safetensors", "*.bin", "tokenizer*.json", "vocab.txt", "*.model", "config.json")


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of the files that count; while these stay, they are not hashed again."""
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=8)
def _folder_identity(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in stamp:
        digest.update(name.encode() + bytes.fromhex(file_sha256(Path(folder) / name)))
    return digest.hexdigest()
