"""Prefill and decode step over static caches.

How it works: both read the same joined weights. Prefill takes sequences one behind the other and leaves
their states in their slots; the step takes one token a row. Neither waits for the device, and the step has
fixed shapes for a number of rows, so that it can be recorded as a CUDA graph.

Guarantees:
- A row's numbers come from its own slot alone."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from dfkeval.backends._continuous import reference
from dfkeval.backends._continuous.caches import Caches
from dfkeval.backends._continuous.packing import Packed
from dfkeval.backends._continuous.weights import AttentionLayer, DeltaLayer, Mlp, Weights, base_of
from dfkeval.models.attention import attend, pictures_together

Tensor = Any
PACKAGE = "dfkeval.backends._continuous"


class Decoder:
    """One model's language part over the slots of `caches`.

    Attributes:
        caches: The slots.
        ops: Module of the small operations: `kernels` on a GPU with Triton, else `reference`.
        pick: Chooses tokens there in one pass; None elsewhere.
        tokens, lengths, shifts: (slots + 1,) last token, tokens in the caches, and how far the places of the
            rotary embedding are ahead of them.
    """

    def __init__(self, model: Any, weights: Weights, caches: Caches) -> None:
        import torch

        self.model, self.weights, self.caches = base_of(model), weights, caches
        self.device = weights.embed.device
        own = self.device.type == "cuda" and importlib.util.find_spec("triton") is not None
        self.ops = importlib.import_module(f"{PACKAGE}.kernels") if own else reference
        self.pick = importlib.import_module(f"{PACKAGE}.choice_kernels").pick if own else None
        self.tokens, self.lengths, self.shifts = (
            torch.zeros(caches.slots + 1, dtype=torch.long, device=self.device) for _ in range(3)
        )

    def step(self, rows: Tensor) -> Tensor:
        """Read the last token of each slot in `rows` (B,) and return its logits (B, vocabulary)."""
        import torch

        weights, ops, sizes = self.weights, self.ops, self.weights.sizes
        x = torch.nn.functional.embedding(self.tokens[rows], weights.embed)
        more, delta, attention = None, 0, 0
        for layer in weights.layers:
            h = ops.add_norm(x, more, layer.norm, sizes.eps)
            if isinstance(layer, AttentionLayer):
                more = self._attention_step(h, rows, layer, attention)
                attention += 1
            else:
                more = self._delta_step(h, rows, layer, delta)
                delta += 1
            h = ops.add_norm(x, more, layer.mlp.norm, sizes.eps)
            more = ops.linear(ops.gate_up(h, layer.mlp.gate_up), layer.mlp.down)
        return self.logits(ops.add_norm(x, more, weights.norm, sizes.eps))

    def logits(self, normed: Tensor) -> Tensor:
        """Return the logits of normed hidden states."""
        import torch

        return torch.nn.functional.linear(normed, self.weights.head)

    def features(self, pixels: Sequence[Tensor], grids: Sequence[Tensor]) -> Tensor | None:
        """Return the features (places, hidden) of pictures, one behind the other; None without pictures."""
        import torch

        if not pixels:
            return None
        patches = torch.cat([each.to(self.device, non_blocking=True) for each in pixels])
        grid = torch.cat(tuple(grids))
        lengths = (grid[:, 1] * grid[:, 2]).repeat_interleave(grid[:, 0]).tolist()
        with pictures_together(self.model.model.visual, lengths):
            found = self.model.get_image_features(patches, grid.to(self.device))
        return torch.cat(tuple(found.pooler_output)).to(self.weights.embed.dtype)

    def prefill(self, packed: Packed, features: Tensor | None = None) -> Tensor:
        """Read the sequences into their slots and return the normed hidden states (T, hidden).

        Args:
            packed: The sequences.
            features: What stands at the places of their pictures.
        """
        import torch

        weights, ops, sizes = self.weights, self.ops, self.weights.sizes
        x = torch.nn.functional.embedding(packed.ids, weights.embed)
        if features is not None:
            token = self.model.config.image_token_id
            ids = [each for part in packed.parts for each in part.ids]
            places = [at for at, each in enumerate(ids) if each == token]
            x[torch.tensor(places, device=self.device)] = features
        turn = self.model.model.language_model.rotary_emb(x, packed.places.unsqueeze(1))
        cos, sin = (each[0] for each in turn)
        more, delta, attention = None, 0, 0
        for layer in weights.layers:
            h = ops.add_norm(x, more, layer.norm, sizes.eps)
            if isinstance(layer, AttentionLayer):
                more = self._attention(h, packed, layer, attention, (cos, sin))
                attention += 1
            else:
                more = self._delta(h, packed, layer, delta)
                delta += 1
            more = self._mlp(ops.add_norm(x, more, layer.mlp.norm, sizes.eps), layer.mlp)
        return ops.add_norm(x, more, weights.norm, sizes.eps)

    def _mlp(self, h: Tensor, mlp: Mlp) -> Tensor:
        import torch

        both = torch.nn.functional.linear(h, mlp.gate_up)
        return torch.nn.functional.linear(self.ops.silu_mul(both), mlp.down)

    def _delta_parts(self, joined: Tensor) -> Any:
        """Return the inputs of the convolution, z, b and a."""
        sizes = self.weights.sizes
        widths = [
            sizes.channels, sizes.value_heads * sizes.value_dim, sizes.value_heads, sizes.value_heads
        ]  # fmt: skip
        return joined.split(widths, dim=-1)

    def _delta_step(self, h: Tensor, rows: Tensor, layer: DeltaLayer, at: int) -> Tensor:
        mixed, *gates = self._delta_parts(self.ops.linear(h, layer.into))
        mixed = self.ops.conv_step(mixed, self.caches.window[at], rows, layer.kernel)
        out = self.ops.delta_step(
            mixed, tuple(gates), self.caches.state[at], rows, layer, self.weights.sizes
        )  # fmt: skip
        return self.ops.linear(out, layer.out)

    def _attention_step(self, h: Tensor, rows: Tensor, layer: AttentionLayer, at: int) -> Tensor:
        out = self.ops.attention_step(
            self.ops.linear(h, layer.into), (self.caches.keys[at], self.caches.values[at]), rows,
            (self.lengths, self.shifts), self.weights.frequencies, layer, self.weights.sizes,
        )  # fmt: skip
        return self.ops.linear(out, layer.out)

    def _delta(self, h: Tensor, packed: Packed, layer: DeltaLayer, at: int) -> Tensor:
        import torch

        sizes, slots = self.weights.sizes, packed.slots
        mixed, z, b, a = self._delta_parts(torch.nn.functional.linear(h, layer.into))
        window, state = self.caches.window[at], self.caches.state[at]
        inputs = torch.cat([window[slots].flatten(0, 1), mixed])
        window[slots] = inputs[packed.windows].unflatten(0, (len(packed.parts), -1))
        mixed = self.ops.conv_packed(inputs, packed.taps, layer.kernel)
        key_width = sizes.key_heads * sizes.key_dim
        query, key, value = mixed.split([key_width, key_width, sizes.value_heads * sizes.value_dim], dim=-1)
        query, key = (each.unflatten(-1, (sizes.key_heads, sizes.key_dim)) for each in (query, key))
        value = value.unflatten(-1, (sizes.value_heads, sizes.value_dim))
        decay = layer.decay * torch.nn.functional.softplus(a.float() + layer.bias)
        query, key = self.ops.unit(query), self.ops.unit(key)
        out, state[slots] = _rule(query, key, value, decay, b.sigmoid(), state[slots], packed)
        gated = self.ops.gated_norm(out, z, layer.gate_norm, sizes.eps)
        return torch.nn.functional.linear(gated, layer.out)

    def _attention(
        self, h: Tensor, packed: Packed, layer: AttentionLayer, at: int, turn: tuple[Tensor, Tensor]
    ) -> Tensor:
        import torch

        joined = torch.nn.functional.linear(h, layer.into)
        query, gate, key, value = reference.project(joined, *turn, layer, self.weights.sizes)
        keys, values = self.caches.keys[at], self.caches.values[at]
        (slots, places), (every, place) = packed.new, packed.known
        keys[slots, :, places], values[slots, :, places] = key, value
        out = attend(
            query, keys[every, :, place], values[every, :, place], (packed.borders.int(), packed.key_borders),
            (packed.lengths, packed.key_lengths), causal=True,
        )  # fmt: skip
        out = out * torch.sigmoid(gate)
        return torch.nn.functional.linear(out.flatten(-2), layer.out)


def _rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """Return the gated delta rule's output (T, heads, value) and the states behind each sequence.

    Queries and keys have length one: fla would tune the kernel that does it anew for every 4,096 tokens."""
    if query.is_cuda and importlib.util.find_spec("fla") is not None:
        rule = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
        query, key, value, decay, beta = (
            each.contiguous().unsqueeze(0) for each in (query, key, value, decay, beta)
        )
        out, final = rule(
            query, key, value, g=decay, beta=beta, initial_state=state, output_final_state=True,
            cu_seqlens=packed.borders, cu_seqlens_cpu=packed.borders_cpu,
        )  # fmt: skip
        return out[0], final
    return _rule_by_rectangle(query, key, value, decay, beta, state, packed)


def _rule_by_rectangle(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor, packed: Packed
) -> tuple[Tensor, Tensor]:
    """The same by transformers' PyTorch code, on a rectangle of sequences.

    A place behind a sequence's end changes nothing there: its decay and its share are zero."""
    from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

    count, repeat = len(packed.parts), value.shape[1] // query.shape[1]
    query, key = (each.repeat_interleave(repeat, 1) for each in (query, key))

    def spread(flat: Tensor) -> Tensor:
        wide = flat.new_zeros(count * packed.longest, *flat.shape[1:])
        wide[packed.spread] = flat
        return wide.unflatten(0, (count, packed.longest))

    out, final = torch_chunk_gated_delta_rule(
        *map(spread, (query, key, value)), g=spread(decay), beta=spread(beta), initial_state=state,
        output_final_state=True,
    )  # fmt: skip
    return out.flatten(0, 1)[packed.spread], final
