"""Encode texts as token embeddings of one encoder layer, or as sentence vectors.

How it works: each distinct text is encoded once, sorted by token length, in batches of a token budget. Layers
above the given one are dropped before the first forward pass, and padding never reaches a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkdata.common.errors import ConfigError, missing_package
from dfkeval.models.loading import foreign_files
from dfkeval.models.quiet import quiet_loading
from dfkeval.models.text_windows import cut_windows

Embedding = NDArray[np.float32]

_STACKS = (
    "encoder.layer",
    "transformer.layer",
    "encoder.block",
    "encoder.layers",
    "layers",
    "layer",
    "block",
)


@dataclass(frozen=True)
class TokenEmbeddings:
    """The embeddings of one text of T tokens.

    Attributes:
        ids: Token ids of shape (T,), special tokens included.
        vectors: Unit vectors of shape (T, D).
        special: Booleans of shape (T,): whether the token is one of the encoder's own marks.
        truncated: Whether the text was longer than the encoder reads.
    """

    ids: NDArray[np.int32]
    vectors: Embedding
    special: NDArray[np.bool_]
    truncated: bool

    @property
    def blank(self) -> bool:
        """Return whether the text has no tokens but special ones."""
        return bool(self.special.all())


def check_obtainable(model: str) -> None:
    """Raise `BackendError` if the configuration of a model is not on this machine and cannot be fetched."""
    _, transformers = _libraries()
    with foreign_files(f"encoder {model!r} cannot be loaded"):
        transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)


class TextEncoder:
    """A loaded tokenizer and encoder.

    Args:
        model: Hub name or folder.
        layer: Number of layers to keep; None for all.
        dtype: Number type, such as "float32".
        device: "cpu", "cuda", or "auto".

    Raises:
        ConfigError: A package is missing, or the model has fewer layers.
        BackendError: The weights cannot be loaded.
    """

    def __init__(self, model: str, layer: int | None, dtype: str, device: str = "auto") -> None:
        self.torch, transformers = _libraries()
        place = ("cuda" if self.torch.cuda.is_available() else "cpu") if device == "auto" else device
        with foreign_files(f"encoder {model!r} cannot be loaded"), quiet_loading():
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            net = transformers.AutoModel.from_pretrained(model, trust_remote_code=False)
        if hasattr(net, "encoder") and hasattr(net, "decoder"):
            net = net.encoder
        if layer is not None:
            drop_layers(net, layer, model)
        self.net = net.eval().to(getattr(self.torch, dtype)).to(place)
        self.device = place
        self.limit = _limit(self.tokenizer, net.config)
        self.marks = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        self.own = list(self.tokenizer("", add_special_tokens=True)["input_ids"])

    def tokens(self, texts: Sequence[str], whole: bool = False) -> list[tuple[list[int], bool]]:
        """Return token ids with special tokens, at most `limit` unless `whole`, and whether a text was
        cut."""
        if not texts:
            return []
        clean = [text.encode("utf-8", "replace").decode("utf-8").strip() for text in texts]
        plain = self.tokenizer(clean, add_special_tokens=True, verbose=False)["input_ids"]
        long = {index for index, ids in enumerate(plain) if len(ids) > self.limit and not whole}
        for index in long:
            plain[index] = self.tokenizer(clean[index], truncation=True, max_length=self.limit)["input_ids"]
        return [(ids, index in long) for index, ids in enumerate(plain)]

    def encode(
        self,
        texts: Sequence[str],
        batch_tokens: int,
        seen: Callable[[str, TokenEmbeddings], None] | None = None,
        windows: bool = False,
    ) -> dict[str, TokenEmbeddings]:
        """Encode texts.

        Args:
            texts: The texts; each distinct one is encoded once.
            batch_tokens: Padded tokens of one forward pass.
            seen: Called with each text and its embeddings as they are ready.
            windows: Whether a text that is longer than the encoder reads is encoded in overlapping windows
                instead of being cut.

        Returns:
            Text -> its embeddings.
        """
        distinct = list(dict.fromkeys(texts))
        tokenized = self.tokens(distinct, whole=windows)
        pieces = [cut_windows(ids, self.limit, self.own) for ids, _ in tokenized]
        order = sorted(
            ((text, at) for text, found in enumerate(pieces) for at in range(len(found))),
            key=lambda each: len(pieces[each[0]][each[1]].ids),
        )
        parts: dict[int, dict[int, Embedding]] = {}
        found: dict[str, TokenEmbeddings] = {}
        for batch in batches([len(pieces[text][at].ids) for text, at in order], batch_tokens):
            chosen = order[batch.start : batch.stop]
            vectors = self._forward([pieces[text][at].ids for text, at in chosen])
            for (text, at), table in zip(chosen, vectors, strict=True):
                window = pieces[text][at]
                ready = parts.setdefault(text, {})
                ready[at] = table[window.start : window.stop] if len(pieces[text]) > 1 else table
                if len(ready) == len(pieces[text]):
                    joined = [part for _, part in sorted(parts.pop(text).items(), key=lambda each: each[0])]
                    found[distinct[text]] = self._encoded(*tokenized[text], joined)
                    if seen is not None:
                        seen(distinct[text], found[distinct[text]])
        return found

    def _encoded(self, ids: list[int], truncated: bool, parts: list[Embedding]) -> TokenEmbeddings:
        blank = len(ids) <= len(self.own)
        special = np.array([blank or token in self.marks for token in ids], dtype=np.bool_)
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return TokenEmbeddings(np.array(ids, dtype=np.int32), vectors, special, truncated)

    def sentences(self, texts: Sequence[str], batch_tokens: int) -> dict[str, NDArray[np.float64]]:
        """Return text -> the mean of its token states, special tokens included, as a unit vector (D,)."""
        distinct = list(dict.fromkeys(texts))
        rows = [ids for ids, _ in self.tokens(distinct)]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found: dict[str, NDArray[np.float64]] = {}
        for batch in batches([len(rows[index]) for index in order], batch_tokens):
            places = order[batch.start : batch.stop]
            states = self._states([rows[place] for place in places]).cpu().numpy().astype(np.float64)
            for place, table in zip(places, states, strict=True):
                mean = table[: len(rows[place])].mean(axis=0)
                found[distinct[place]] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return found

    def _forward(self, rows: list[list[int]]) -> list[Embedding]:
        """Return unit vectors (T, D) of each row; rows of one batch are padded on the right and cut back."""
        hidden = self._states(rows)
        out = (hidden / hidden.norm(dim=-1, keepdim=True)).cpu().numpy()
        return [np.ascontiguousarray(out[index, : len(row)]) for index, row in enumerate(rows)]

    def _states(self, rows: list[list[int]]) -> Any:
        """Return token states (B, T, D) of rows padded on the right, in fp32."""
        torch = self.torch
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        with torch.inference_mode():
            return self.net(ids, attention_mask=mask)[0].float()


def batches(lengths: Sequence[int], budget: int) -> Iterator[range]:
    """Cut rising lengths into runs whose padded size stays within a budget; a longer single one stands
    alone."""
    start = 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or lengths[stop] * (stop + 1 - start) > budget:
            yield range(start, stop)
            start = stop


def drop_layers(net: Any, layer: int, model: str) -> None:
    """Drop the layers above `layer`, in place. Raises `ConfigError` if the model has fewer."""
    total = net.config.num_hidden_layers
    if not 0 <= layer <= total:
        raise ConfigError(f"BERTScore layer {layer}: {model!r} has {total} layers")
    if hasattr(getattr(net, "encoder", None), "albert_layer_groups"):
        net.encoder.config.num_hidden_layers = layer
        return
    for path in _STACKS:
        owner, _, name = path.rpartition(".")
        holder = getattr(net, owner, None) if owner else net
        stack = getattr(holder, name, None)
        if stack is not None and len(stack) == total:
            setattr(holder, name, stack[:layer])
            return
    if layer != total:
        raise ConfigError(
            f"BERTScore: no stack of layers found in {model!r}; use its last layer: layer: {total}"
        )


def _limit(tokenizer: Any, config: Any) -> int:
    """Return the longest row in tokens; the model's positions decide if the tokenizer declares no limit."""
    positions = getattr(config, "max_position_embeddings", 0) or 512
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer"):
        positions -= 2  # their positions start after the padding index
    return (
        int(min(tokenizer.model_max_length, positions)) if positions > 0 else int(tokenizer.model_max_length)
    )


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise missing_package("bertscore", error.name or "torch", "metrics") from error
    return torch, transformers
