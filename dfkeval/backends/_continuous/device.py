"""The device's side of continuous batching: prefill a group, compute logits, choose tokens.

How it works: `forward` and `choose` are two recordings for each number of rows, so that masks and forced
tokens of the host can be laid between them. Everything is queued; only reading tokens (`Arriving`) waits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dfkeval.backends._continuous.decoder import Decoder
from dfkeval.backends._continuous.packing import PromptPart, pack
from dfkeval.backends._continuous.recorder import Recorder
from dfkeval.backends._continuous.sampler import FREE, Sampler
from dfkeval.types import Sampling

Tensor = Any
BUCKETS = (1, 8, 32, 64, 128, 256)
"""Numbers of rows for which a step is recorded; rows that fill one up cost next to nothing."""


@dataclass(frozen=True)
class Reading:
    """One prompt of a prefill.

    Args:
        slots: Slots that get it; several draw from one prompt.
        ids: All its tokens.
        known: Tokens at its beginning that slot `source` holds.
        source: That slot; None if nothing is known.
        positions: (3, T) places of the rotary embedding; None for a text.
        shift: How far the places behind it are ahead of its length.
        pixels, grid: Its pictures; None without.
        words: What each slot's draws depend on.
    """

    slots: Sequence[int]
    ids: Sequence[int]
    known: int = 0
    source: int | None = None
    positions: Any = None
    shift: int = 0
    pixels: Any = None
    grid: Any = None
    words: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Bounds:
    """What the host demands of the next tokens.

    Args:
        forced: For each row the token that is written, or `FREE`.
        mask: (B, words) bits of the tokens that grammars allow, on the CPU; None without grammars.
    """

    forced: Sequence[int]
    mask: Tensor | None = None


class Arriving:
    """Tokens on their way to the host."""

    def __init__(self, tokens: Tensor, count: int) -> None:
        import torch

        self._count, self._event = count, None
        if tokens.is_cuda:
            self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._tokens.copy_(tokens, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._tokens = tokens

    def wait(self) -> list[int]:
        """Return the tokens, when they are there."""
        if self._event is not None:
            self._event.synchronize()
        return list(self._tokens[: self._count].tolist())


class Stepper:
    """A decoder and the samplers over its slots."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.device = decoder, decoder.device
        self.nobody, self.vocab = decoder.caches.slots, decoder.weights.sizes.vocab
        self.recorder = Recorder(self.device)
        self.sampler: Sampler
        self._samplers: dict[tuple[float, ...], Sampler] = {}
        self._kind: tuple[float, ...] = ()
        self._fixed: dict[int, dict[str, Tensor]] = {}
        self._shown: tuple[int, list[int]] = (0, [])
        self._forcing: set[int] = set()

    def use(self, sampling: Sampling) -> None:
        """Choose tokens by these settings from now on."""
        self._kind = (
            sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, sampling.repetition_penalty
        )  # fmt: skip
        if self._kind not in self._samplers:
            self._samplers[self._kind] = Sampler(
                sampling, self.vocab, self.nobody, self.device, self.decoder.pick
            )
        self.sampler = self._samplers[self._kind]

    def read(self, prompts: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Read (slot, tokens) without an answer: beginnings that others are copied from."""
        import torch

        with torch.inference_mode(), _plain(self.device):
            packed = self._packed([PromptPart(slot, 0, ids) for slot, ids in prompts])
            self.decoder.caches.clear(packed.slots)
            self.decoder.prefill(packed)

    def begin(self, readings: Sequence[Reading], bounds: Bounds) -> Arriving:
        """Read prompts into their slots and choose each slot's first token, in the order of the readings'
        slots."""
        import torch

        shown = [each for each in readings if each.pixels is not None]
        with torch.inference_mode():
            features = self.decoder.features([each.pixels for each in shown], [each.grid for each in shown])
            with _plain(self.device):
                logits = self._prefilled(readings, features)
                return Arriving(self._first(readings, logits, bounds), len(bounds.forced))

    def forward(self, slots: Sequence[int]) -> Tensor:
        """Return the logits behind the slots' last tokens, in as many rows as are recorded."""
        import torch

        bucket = self._bucket(len(slots))
        with torch.inference_mode(), _plain(self.device):
            rows, key = self._static(bucket)["rows"], ("forward", bucket)
            if not self.recorder.known(key):
                rows.fill_(self.nobody)
                self.recorder.record(key, lambda: self.decoder.step(rows))
                self._shown = (0, [])
            if self._shown != (bucket, list(slots)):
                rows.copy_(self._sent([*slots, *[self.nobody] * (bucket - len(slots))]))
                self._shown = (bucket, list(slots))
            return self.recorder.run(key, lambda: self.decoder.step(rows))

    def choose(self, logits: Tensor, bounds: Bounds) -> Arriving:
        """Choose the next tokens of the rows that `forward` has computed."""
        import torch

        bucket, count, bound = logits.shape[0], len(bounds.forced), bounds.mask is not None
        with torch.inference_mode(), _plain(self.device):
            static, sampler = self._static(bucket), self.sampler
            rows, key = static["rows"], ("choose", bucket, bound, self._kind)

            def work() -> Tensor:
                kept = (self.decoder.tokens, self.decoder.lengths)
                return sampler.choose(logits, rows, static["forced"], static["mask"] if bound else None, kept)

            if not self.recorder.known(key):
                rows.fill_(self.nobody)
                self.recorder.record(key, work)
                rows.copy_(self._sent([*self._shown[1], *[self.nobody] * (bucket - count)]))
            if bounds.mask is not None:
                static["mask"][:count].copy_(self._sent(bounds.mask))
            forces = any(token != FREE for token in bounds.forced)
            if forces or bucket in self._forcing:  # also where rows have left: others come there
                static["forced"].copy_(self._sent([*bounds.forced, *[FREE] * (bucket - count)]))
                self._forcing = self._forcing | {bucket} if forces else self._forcing - {bucket}
            return Arriving(self.recorder.run(key, work), count)

    def _bucket(self, count: int) -> int:
        """Return for how many rows a step is computed."""
        if not self.recorder.records:
            return count
        return next((size for size in BUCKETS if size >= count), -(-count // BUCKETS[-1]) * BUCKETS[-1])

    def _static(self, bucket: int) -> dict[str, Tensor]:
        """Return the tensors of fixed addresses for so many rows."""
        import torch

        if bucket not in self._fixed:
            words = -(-self.vocab // 32)
            self._fixed[bucket] = {
                "rows": torch.full((bucket,), self.nobody, device=self.device),
                "forced": torch.full((bucket,), FREE, device=self.device),
                "mask": torch.full((bucket, words), FREE, dtype=torch.int32, device=self.device),
            }
        return self._fixed[bucket]

    def _sent(self, values: Any) -> Tensor:
        """Return numbers on the device without a wait."""
        import torch

        tensor = torch.as_tensor(values)
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _packed(self, parts: Sequence[PromptPart]) -> Any:
        return pack(parts, self.decoder.weights.sizes.taps, self._sent)

    def _prefilled(self, readings: Sequence[Reading], features: Tensor | None) -> Tensor:
        """Return the logits behind each reading, and fill all of its slots."""
        caches = self.decoder.caches
        packed = self._packed([
            PromptPart(each.slots[0], each.known, each.ids[each.known :],
                 None if each.positions is None else each.positions[:, each.known :])
            for each in readings
        ])  # fmt: skip
        caches.clear(packed.slots)
        for source in {each.source for each in readings if each.source is not None}:
            fed = [each for each in readings if each.source == source]
            caches.copy(source, self._sent([each.slots[0] for each in fed]), fed[0].known)
        hidden = self.decoder.prefill(packed, features)[packed.last]
        for each in readings:
            if len(each.slots) > 1:
                caches.copy(each.slots[0], self._sent(each.slots[1:]), len(each.ids))
        return self.decoder.logits(hidden)

    def _first(self, readings: Sequence[Reading], logits: Tensor, bounds: Bounds) -> Tensor:
        """Set up the slots and return their first tokens."""
        pairs = [(slot, at) for at, each in enumerate(readings) for slot in each.slots]
        slots = self._sent([slot for slot, _ in pairs])
        owners = self._sent([at for _, at in pairs])
        decoder = self.decoder
        decoder.lengths[slots] = self._sent([len(readings[at].ids) for _, at in pairs])
        decoder.shifts[slots] = self._sent([readings[at].shift for _, at in pairs])
        words = [each for reading in readings for each in reading.words]
        self.sampler.begin(slots, words, [(slot, readings[at].ids) for slot, at in pairs])
        mask = None if bounds.mask is None else self._sent(bounds.mask)
        tokens = self.sampler.choose(logits[owners], slots, self._sent(bounds.forced), mask)
        decoder.tokens[slots] = tokens
        return tokens


def _plain(device: Any) -> AbstractContextManager[Any]:
    """Leave autocast, which would cast the weights anew in every product."""
    import torch

    outside: AbstractContextManager[Any] = torch.autocast(device.type, enabled=False)
    return outside
