"""Score pairs of texts by BERTScore: greedy matching of contextual token embeddings.

How it works: each distinct text is encoded once (`dfkeval.models.text_encoder`), and each pair is matched alone. No
padding ever takes part in a match, so the numbers of a pair do not depend on the batch, the order or other pairs; they
equal those of the bert-score package at batch size 1 (which matches special tokens as targets but gives them no
weight).

Guarantees:

- No text makes it fail: empty, blank, None, NUL, thousands of tokens.
- A text without tokens scores 0; texts that were cut are flagged; no number is above 1 or NaN."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfkdata.common import config
from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.metrics._bertscore_models import LANGUAGES, MULTILINGUAL, layer_of
from dfkeval.metrics._embedding_cache import EmbeddingCache, identity
from dfkeval.metrics._prose import TextScores
from dfkeval.models.text_encoder import TextEncoder, TokenEmbeddings, check_obtainable

Dtype = Literal["float32", "bfloat16"]
Reference = str | None | Sequence[str | None]

#: Texts of about this many characters are held in memory at once; longer lists are scored in blocks.
BLOCK_CHARACTERS = 4_000_000


#: Details that decide the numbers.
SETTINGS = ("model", "weights_sha256", "layer", "idf", "dtype", "windows")


class Options(config.Config):
    """Options of the metric `bertscore`; `sita_bertscore` and `sita_captioning_bertscore` use them too.

    Attributes:
        model: Hub name or folder of an encoder; None takes the language's.
        layer: Number of layers to run; None takes the table's.
        lang: Language that picks a model if none is named, such as "en".
        dtype: Number type of the encoder.
        batch_tokens: Padded tokens of one forward pass.
        idf: Whether tokens are weighted by their rarity in the references.
        cache: Folder of embeddings that are kept between runs.
        windows: Whether texts beyond the encoder's length are read in overlapping windows instead of being cut.
    """

    model: str | None = None
    layer: int | None = None
    lang: str | None = None
    dtype: Dtype = "float32"
    batch_tokens: int = 2048
    idf: bool = False
    cache: Path | None = None
    windows: bool = False


def score(
    candidates: Sequence[str | None],
    references: Sequence[Reference],
    *,
    model: str | None = None,
    layer: int | None = None,
    lang: str | None = None,
    dtype: Dtype = "float32",
    batch_tokens: int = 2048,
    idf: bool = False,
    cache: str | Path | None = None,
    windows: bool = False,
) -> TextScores:
    """Score each pair of texts by BERTScore.

    Args:
        candidates: The answers; None counts as empty.
        references: The gold text of each answer, or several, of which the best counts, column by column.
        model: Hub name or folder of an encoder; with neither `model` nor `lang`, multilingual BERT.
        layer: Number of layers to run; None takes the table's.
        lang: Language that picks a model if none is named.
        dtype: Number type of the encoder.
        batch_tokens: Padded tokens of one forward pass.
        idf: Whether tokens are weighted by their rarity in the references.
        cache: Folder of embeddings that are kept between runs.
        windows: Whether texts that are longer than the encoder reads are encoded in overlapping windows; without
            it they are cut and flagged.

    Returns:
        Precision, recall and F1 of each pair, and whether a text was cut.

    Raises:
        ValueError: The lists have different lengths.
        ConfigError: The model is not in the layer table, and no layer is given.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but {len(references)} references")
    name, depth = choose(model, layer, lang)
    answer = [text or "" for text in candidates]
    gold = [_as_list(reference) for reference in references]
    source = _Source(name, depth, dtype, batch_tokens, None if cache is None else Path(cache), windows)
    weights = _idf(source, [text for texts in gold for text in texts]) if idf else None
    rows = np.zeros((len(answer), 3))
    truncated = np.zeros(len(answer), dtype=np.bool_)
    for block in _blocks(answer, gold):
        embeddings = source.encode([text for index in block for text in (answer[index], *gold[index])])
        for index in block:
            rows[index], truncated[index] = _best(embeddings, answer[index], gold[index], weights)
    return TextScores(rows[:, 0], rows[:, 1], rows[:, 2], truncated)


def choose(model: str | None, layer: int | None, lang: str | None) -> tuple[str, int]:
    """Return the model and the layer that the options mean. Raises `ConfigError` if the layer is unknown."""
    name = model or (LANGUAGES.get(lang, MULTILINGUAL) if lang else MULTILINGUAL)
    depth = layer if layer is not None else layer_of(name)
    if depth is None:
        raise ConfigError(
            f"BERTScore model {name!r} is not in the layer table; say which layer to read, such as layer: 6"
        )
    return name, depth


def _as_list(reference: Reference) -> list[str]:
    if reference is None or isinstance(reference, str):
        return [reference or ""]
    return [text or "" for text in reference] or [""]


def _blocks(answer: Sequence[str], gold: Sequence[Sequence[str]]) -> Iterable[range]:
    """Yield runs of pairs whose texts fit in memory together."""
    start = size = 0
    for index in range(len(answer)):
        size += len(answer[index]) + sum(map(len, gold[index]))
        if size > BLOCK_CHARACTERS or index + 1 == len(answer):
            yield range(start, index + 1)
            start, size = index + 1, 0


def check_model(options: Options) -> None:
    """Raise `ConfigError` if the encoder is not a folder, not on this machine and cannot be fetched from the hub.

    At most a small file is fetched. With a cache of embeddings, which may hold all, nothing is checked.
    """
    if options.cache is not None:
        return
    name, _ = choose(options.model, options.layer, options.lang)
    try:
        check_obtainable(name)
    except BackendError as error:
        raise ConfigError(
            f"metric 'bertscore': {error}\nname a folder with bertscore.model, fetch the encoder where there "
            "is a network, or leave the metric out"
        ) from error


class _Source:
    """Embeddings by text, from the cache or else from the encoder, which is loaded on first need."""

    def __init__(
        self, model: str, layer: int, dtype: str, batch_tokens: int, cache: Path | None, windows: bool
    ) -> None:
        self.model, self.layer, self.dtype, self.batch_tokens = model, layer, dtype, batch_tokens
        self.windows = windows
        self.cache = None
        if cache is not None:
            name = identity(model) + ("|windows" if windows else "")
            self.cache = EmbeddingCache(cache, name, layer, dtype)

    @property
    def encoder(self) -> TextEncoder:
        return encoder(self.model, self.layer, self.dtype)

    def encode(self, texts: Sequence[str]) -> dict[str, TokenEmbeddings]:
        """Return embeddings by text; what the cache lacks is encoded and stored."""
        if self.cache is None:
            return self.encoder.encode(texts, self.batch_tokens, windows=self.windows)
        stored = {text: self.cache.get(text) for text in dict.fromkeys(texts)}
        embeddings = {text: encoded for text, encoded in stored.items() if encoded is not None}
        missing = [text for text, encoded in stored.items() if encoded is None]
        if missing:
            embeddings |= self.encoder.encode(missing, self.batch_tokens, self.cache.put, self.windows)
        return embeddings


@lru_cache(maxsize=2)
def encoder(model: str, layer: int, dtype: str) -> TextEncoder:
    """Return a loaded encoder; the last two stay in memory, so that scoring several runs loads it once."""
    return TextEncoder(model, layer, dtype)


def _idf(source: _Source, references: Sequence[str]) -> dict[int, float]:
    """Return token -> log((N + 1) / (documents with it + 1)) over all references; -1 for unseen tokens."""
    tokenized = source.encoder.tokens(references, whole=source.windows)
    documents = Counter(token for ids, _ in tokenized for token in set(ids))
    total = len(references) + 1
    return {token: math.log(total / (count + 1)) for token, count in documents.items()} | {
        -1: math.log(total)
    }


def _best(
    embeddings: Mapping[str, TokenEmbeddings],
    answer: str,
    gold: Sequence[str],
    idf: Mapping[int, float] | None,
) -> tuple[tuple[float, float, float], bool]:
    """Return the best precision, recall and F1 over the references, and whether any text was cut."""
    rows = [match(embeddings[answer], embeddings[text], idf) for text in gold]
    best = tuple(max(values) for values in zip(*rows, strict=True))
    return (best[0], best[1], best[2]), embeddings[answer].truncated or any(
        embeddings[text].truncated for text in gold
    )


def match(
    answer: TokenEmbeddings, gold: TokenEmbeddings, idf: Mapping[int, float] | None = None
) -> tuple[float, float, float]:
    """Return precision, recall and F1 of one pair; each token is matched with its most similar one."""
    if answer.blank or gold.blank:
        return (0.0, 0.0, 0.0)
    similar = answer.vectors @ gold.vectors.T  # (T said, T gold)
    precision = _weighted(similar.max(axis=1), answer, idf)
    recall = _weighted(similar.max(axis=0), gold, idf)
    total = precision + recall
    return (precision, recall, min(2 * precision * recall / total, 1.0) if total else 0.0)


def _weighted(values: Any, text: TokenEmbeddings, idf: Mapping[int, float] | None) -> float:
    """Return the mean over the text's own tokens; uniform if every idf is 0, as with a single reference."""
    if idf is None:
        weights = (~text.special).astype(np.float64)
    else:
        weights = np.array([idf.get(int(token), idf[-1]) for token in text.ids], dtype=np.float64)
        weights = weights if weights.sum() > 0 else (~text.special).astype(np.float64)
    return min(float(values.astype(np.float64) @ weights / weights.sum()), 1.0)


def settings(options: Options, scores: TextScores) -> dict[str, Any]:
    """Return the details that decide the numbers, and how many texts were cut."""
    name, layer = choose(options.model, options.layer, options.lang)
    return {
        "model": Path(name).name if Path(name).is_dir() else name,
        "layer": layer,
        "dtype": options.dtype,
        "idf": options.idf,
        "windows": options.windows,
        "truncated": int(scores.truncated.sum()),
        "weights_sha256": identity(name),
    }
