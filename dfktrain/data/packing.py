"""Pack several samples into one row without padding, so that they do not see each other.

How it works: text positions restart with every sample, from which the library builds a block-diagonal
attention mask. The gated delta rule runs on each sample alone, and the causal convolution masks every tap that
would reach into the sample before. A fast kernel that does so itself is used; the library's torch fallbacks
ignore sequence borders and are replaced by ours.

Guarantees:
    - Logits and gradients equal those of unpacked samples up to fp32 rounding, in hybrid models and with
      images too.
    - `packing_fault` checks that on the real model before the first step. A model that fails is trained on
      padded batches instead."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dfkdata.common.errors import ConfigError
from dfkeval.models.families import is_packable
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
from dfktrain.data.pixels import BYTES

LEAK = 1e-3
"""Largest difference of hidden states, relative to the largest state, that counts as rounding in fp32."""
LEAK_BF16 = 3e-2
"""The same in bf16, whose rounding alone gives about 1e-2; leaks measured on small models are 0.06 and
more."""


class Packer:
    """Make batches like `Collator`, but packed into one row.

    Args:
        collator: Encodes the rows; its processor must be a vision-language one.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[dict[str, Any] | EncodedSample]) -> dict[str, Tensor]:
        """Return N rows packed in their order into one row of T tokens.

        Returns:
            input_ids, labels, mm_token_type_ids and seq_idx (1, T), position_ids (4, 1, T), cu_seq_lens_q and
            cu_seq_lens_k (N + 1), and as `Collator` returns them pixel_values, image_grid_thw and
            loss_weights. There is no attention mask.

        Raises:
            DataError: A row cannot be trained on.
        """
        samples = [row if isinstance(row, EncodedSample) else self.collator.encode(row) for row in rows]
        padded = self.collator(samples)
        tokens = padded["attention_mask"].bool()
        names = ("input_ids", "labels", "mm_token_type_ids", "loss_weights")
        batch = {name: padded[name][tokens].unsqueeze(0) for name in names if name in padded}
        grids = padded.get("image_grid_thw")
        lengths = [len(sample) for sample in samples]
        batch |= borders(lengths)
        merge = int(self.collator.image_processor.merge_size)
        batch["position_ids"] = packed_positions(batch["mm_token_type_ids"][0], lengths, grids, merge)
        for name in ("pixel_values", BYTES, "image_grid_thw"):
            if name in padded:
                batch[name] = padded[name]
        return batch


def borders(lengths: Sequence[int]) -> dict[str, Tensor]:
    """Return where sequences begin and end, under the argument names of the kernels."""
    sizes = torch.tensor(lengths, dtype=torch.int32)
    ends = torch.nn.functional.pad(sizes.cumsum(0, dtype=torch.int32), (1, 0))
    index = torch.arange(len(lengths), dtype=torch.int32)
    return {
        "seq_idx": torch.repeat_interleave(index, sizes.long()).unsqueeze(0),
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends.clone(),
    }


def packed_positions(types: Tensor, lengths: Sequence[int], grids: Tensor | None, merge: int) -> Tensor:
    """Return position_ids (4, 1, T): text positions that restart with every sequence, then the model's own.

    Args:
        types: Token types (T,), 1 at image tokens.
        lengths: Tokens of each sequence.
        grids: Time, height and width (N, 3) of all images in order, in patches; None without images.
        merge: Patches that a token merges, in each direction.
    """
    counter = iter(grids.tolist()) if grids is not None else iter(())
    parts = []
    for kind in types.split(list(lengths)):
        text = torch.arange(len(kind)).unsqueeze(0)
        parts.append(torch.cat([text, rope_positions(kind, counter, merge)]))
    return torch.cat(parts, dim=1).unsqueeze(1)


def rope_positions(types: Tensor, grids: Any, merge: int) -> Tensor:
    """Return time, height and width positions (3, T) of one sequence.

    Text counts up in all three rows; an image spans its grid from one start."""
    runs = torch.unique_consecutive(types, return_counts=True)
    parts, start = [], 0
    for kind, count in zip(*(run.tolist() for run in runs), strict=True):
        left = count
        while left and kind:  # neighbouring images form one run of image tokens
            time, height, width = next(grids)
            grid = (time, height // merge, width // merge)
            axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
            parts.append(torch.stack([axis.reshape(-1) for axis in axes]) + start)
            start += max(grid[1:])
            left -= grid[0] * grid[1] * grid[2]
        if not kind:
            parts.append(torch.arange(count).expand(3, -1) + start)
            start += count
    return torch.cat(parts, dim=1)


def conv_by_sequence(
    states: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, seq_idx: Tensor
) -> Tensor:
    """Compute a causal depthwise convolution in which no tap crosses a border between sequences.

    Args:
        states: Inputs (B, C, T).
        weight: Taps (C, K).
        bias: Bias (C), or None.
        activation: Name of an activation of transformers, or None.
        seq_idx: Number of the sequence of each token (B, T).
    """
    taps = weight.shape[-1]
    out = states * weight[:, -1, None]
    for back in range(1, taps):
        same = torch.nn.functional.pad(seq_idx[:, back:] == seq_idx[:, :-back], (back, 0))
        moved = torch.nn.functional.pad(states[:, :, :-back], (back, 0)) * same.unsqueeze(1)
        out = out + moved * weight[:, -1 - back, None]
    if bias is not None:
        out = out + bias[:, None]
    if activation is not None:
        from transformers.activations import ACT2FN

        out = ACT2FN[activation](out)
    return out.to(states.dtype)


def rule_by_sequence(
    rule: Callable[..., Any], parts: Sequence[Tensor], cu_seqlens: Tensor, **options: Any
) -> Any:
    """Compute a gated delta rule over packed inputs, each sequence from an empty state.

    The sequences become a right-padded batch. Padding has decay 0 in log space and beta 0, so it changes
    nothing.

    Args:
        rule: The rule for unpacked inputs.
        parts: q, k, v, g and beta (1, T, ...).
        cu_seqlens: Borders of the sequences (N + 1).
        options: Passed on to `rule`.
    """
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    batched = [pad_sequence(part[0].split(lengths), batch_first=True) for part in parts]
    query, key, value, decay, beta = batched
    out, state = rule(query, key, value, g=decay, beta=beta, **options)
    return torch.cat([row[:length] for row, length in zip(out, lengths, strict=True)]).unsqueeze(0), state


def patch_fallbacks(model_type: str) -> None:
    """Make the library's torch fallbacks of a model type respect sequence borders.

    Calls without borders compute what they did before. Calling it twice does no harm.

    Raises:
        ConfigError: Packing is not tested for this model type.
    """
    if not is_packable(model_type):
        raise ConfigError(f"packing is not verified for {model_type} models; leave packing off")
    module: Any = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    if not hasattr(module, "dfk_packing"):
        module.dfk_packing = True
        _wrap_conv(module)
        _wrap_rule(module)


def _wrap_conv(module: Any) -> None:
    library = module.causal_conv1d_fn
    native = importlib.util.find_spec("causal_conv1d") is not None

    def causal_conv1d_fn(
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        activation: str | None = None,
        **kwargs: Any,
    ) -> Tensor:
        seq_idx = kwargs.get("seq_idx")
        if seq_idx is None or native:
            return library(states, weight, bias, activation=activation, **kwargs)
        return conv_by_sequence(states, weight, bias, activation, seq_idx)

    module.causal_conv1d_fn = causal_conv1d_fn


def _wrap_rule(module: Any) -> None:
    library = module.torch_chunk_gated_delta_rule
    native = importlib.util.find_spec("fla") is not None

    def chunk_rule(query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Any:
        cu_seqlens = kwargs.pop("cu_seqlens", None)
        if cu_seqlens is None:
            return library(query, key, value, **kwargs)
        if native:
            return library(query, key, value, cu_seqlens=cu_seqlens, **kwargs)
        parts = (query, key, value, kwargs.pop("g"), kwargs.pop("beta"))
        return rule_by_sequence(library, parts, cu_seqlens, **kwargs)

    module.torch_chunk_gated_delta_rule = chunk_rule


def packing_fault(
    body: nn.Module, packer: Packer, samples: Sequence[EncodedSample], attention: str
) -> str | None:
    """Return None if samples may be packed on this model, else the reason; patches the model's kernels.

    Args:
        body: The network below the head.
        packer: Makes packed batches.
        samples: Samples that are compared packed and alone.
        attention: Name of the attention implementation.
    """
    kind = body.config.model_type
    if not is_packable(kind):
        return f"packing is not verified for {kind} models"
    if attention != "sdpa":
        return f"packing is verified for attention sdpa, not for {attention}"
    patch_fallbacks(kind)
    limit = LEAK if next(body.parameters()).dtype == torch.float32 else LEAK_BF16
    difference = packed_difference(body, packer, samples)
    if difference <= limit:
        return None
    return f"packed samples see each other: states differ by {difference:.1e} (limit {limit})"


def packed_difference(body: nn.Module, packer: Packer, samples: Sequence[EncodedSample]) -> float:
    """Return the largest difference between hidden states of packed and lone samples.

    It is relative to the largest state; above `LEAK` the sequences see each other."""
    device = next(body.parameters()).device

    def states(batch: dict[str, Tensor]) -> Tensor:
        inputs = {
            name: value.to(device) for name, value in batch.items() if name not in ("labels", "loss_weights")
        }
        return body(**inputs, use_cache=False).last_hidden_state

    was_training = body.training
    body.eval()
    with torch.no_grad():
        packed = states(packer(samples))[0]
        alone = torch.cat([states(packer.collator([sample]))[0] for sample in samples])
    body.train(was_training)
    return float((packed - alone).abs().max() / alone.abs().max())
