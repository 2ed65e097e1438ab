"""Which kernels compute the network on this machine, and whether the fast ones are right.

How it works: before a run on a GPU the fast gated delta rule is compared, output and gradients, with a plain
recurrence in fp32, because some releases compute wrong gradients on some GPUs without any error."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import BackendError
from dfkdata.common.versions import release
from dfkeval.models.families import family_of
from dfkeval.models.fla_settings import HEAD, keep_settings, settings_for
from dfktrain.engines._versions import package_versions


@dataclass(frozen=True)
class Kernel:
    """The kernel of one part of the network.

    Attributes:
        part: The part, e.g. "attention".
        choice: The kernel that computes it.
        why: Why this one and nothing faster.
        cost: What that costs on a GPU, beside the fastest one; empty if it is the fastest.
    """

    part: str
    choice: str
    why: str
    cost: str = ""


def kernels(model_type: str, attention: str, *, fused: bool = False) -> list[Kernel]:
    """Return the kernels of attention and head, and of the gated delta rule if the model is a hybrid one.

    Args:
        model_type: The model's type.
        attention: Name of its attention implementation.
        fused: Whether the configuration asks for fused layers.
    """
    common = [
        Kernel("attention", attention, "as configured"),
        Kernel("head and loss", "own, chunked", "logits at scored positions only"),
    ]
    return [*_hybrid(fused), *common] if family_of(model_type).hybrid else common


def _hybrid(fused: bool) -> list[Kernel]:
    fla, conv = (importlib.util.find_spec(name) is not None for name in ("fla", "causal_conv1d"))
    slow = "flash-linear-attention is not installed; on a GPU it is over 10 times faster"
    return [
        Kernel("gated delta rule", "fla", _why_fla())
        if fla
        else Kernel("gated delta rule", "torch", slow, "a step takes about twice as long, or more"),
        _convolution(conv, fused),
    ]


def _convolution(installed: bool, fused: bool) -> Kernel:
    if fused:
        return Kernel("causal convolution", "own, fused", "fused_layers; compared with the library's first")
    if installed:
        return Kernel("causal convolution", "causal_conv1d", "installed")
    missing, cost = "causal_conv1d is not installed (it has no wheel)", "about a fifth of a step"
    return Kernel("causal convolution", "torch", missing, f"{cost}; fused_layers replaces it")


def _why_fla() -> str:
    checked = "installed; its value and gradients are compared with the plain rule before the first step"
    checked += f"; {_tuning()}"
    return f"{checked}; {REFUSED_ON_HOPPER}" if _refused_on_hopper(package_versions()) else checked


def _tuning() -> str:
    """Say where the settings of its kernels come from."""
    import torch

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
    if settings_for(capability, HEAD):
        return f"settings for this GPU are known (heads of {HEAD})"
    return (
        "its settings are timed on this GPU during the first steps, which takes minutes, and kept in "
        "Triton's cache"
    )


REFUSED_ON_HOPPER = (
    "fla refuses its backward pass on this GPU with triton 3.4.0 to 3.7.0 and without tilelang; the refusal "
    "is lifted for that comparison and stays lifted only if it holds (surer: triton>=3.7.1 or tilelang)"
)


def _refused_on_hopper(versions: Mapping[str, str]) -> bool:
    """Return whether fla refuses its backward pass here, because of a block size that is miscompiled."""
    import torch

    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9 or "tilelang" in versions:
        return False
    return (3, 4, 0) <= release(versions.get("triton", "0")) < (3, 7, 1)


GDN_LIMIT = 2e-2
"""Largest relative difference between the fast gated delta rule and the plain recurrence that counts as
rounding."""


def check_kernels(settings: Any, *, patched: bool = False, fused: bool = False) -> None:
    """Check the fast kernels that a model would use on this GPU, before the run costs anything.

    Args:
        settings: The model's transformers configuration.
        patched: Whether an engine may have bound fast kernels although their own package is not installed.
        fused: Whether layers may be fused: then the gated delta rule runs on one row of sequences, for which other
            kernels are compiled.

    Raises:
        BackendError: A kernel does not run or computes wrong gradients.
    """
    import torch

    fast = patched or importlib.util.find_spec("fla")
    if fast and family_of(settings.model_type).hybrid and torch.cuda.is_available():
        text = settings.get_text_config()
        if not patched:  # an engine's own copy of fla is not the one that is known here
            keep_settings(settings_for(torch.cuda.get_device_capability(), text.linear_key_head_dim))
        shape = (text.linear_num_value_heads, text.linear_value_head_dim)
        if fused:
            with suppress(BackendError):  # then the layers keep the library's form
                check_gated_delta_rule("cuda", *shape, one_row=True)
                return
        check_gated_delta_rule("cuda", *shape)


def check_gated_delta_rule(
    device: str, heads: int = 16, head: int = 128, *, one_row: bool = False
) -> dict[str, float]:
    """Compare the gated delta rule that transformers uses on `device` with the plain recurrence, in bf16.

    fla 0.6.0 refuses its backward pass on Hopper GPUs with triton 3.4.0 to 3.7.0, because a block size that
    this head width does not use is miscompiled there. The refusal is lifted for the check, and stays lifted
    only if the output and all gradients are right.

    Args:
        device: "cuda" or "cpu".
        heads: Number of value heads. Pass the model's own, so that the kernels that are tuned for the check
            are the ones that training uses; tuning takes minutes for each shape.
        head: Width of a head.
        one_row: Whether the rule is checked in the form that fused layers have.

    Returns:
        The relative differences, as `gdn_difference`.

    Raises:
        BackendError: The rule does not run or differs by more than `GDN_LIMIT`.
    """
    lifted = _lift_refusal()
    way_out = "install triton>=3.7.1 or tilelang, or uninstall flash-linear-attention (slower, but right)"
    try:
        form = {"rows": 2, "rule": _one_row()} if one_row else {}
        differences = gdn_difference(device, heads=heads, head=head, dtype="bfloat16", **form)
    except RuntimeError as error:
        raise BackendError(f"the fast gated delta rule does not run here: {error}; {way_out}") from error
    # not "difference > GDN_LIMIT", because NaN is wrong as well
    wrong = [name for name, difference in differences.items() if not difference <= GDN_LIMIT]
    if wrong:
        raise BackendError(
            f"the fast gated delta rule is wrong on this GPU: {wrong[0]} differs by "
            f"{differences[wrong[0]]:.1e}{' with its own refusal lifted' if lifted else ''}; {way_out}"
        )
    return differences


def _one_row() -> Any:
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    from dfktrain.engines import _delta_rule

    return _delta_rule.one_row(getattr(library, _delta_rule.NAME))


def _lift_refusal() -> bool:
    if importlib.util.find_spec("fla") is None or importlib.util.find_spec("tilelang") is not None:
        return False
    module: Any = importlib.import_module("fla.ops.common.chunk_o")
    if getattr(module, "TRITON_ABOVE_3_7_1", True):
        return False
    module.TRITON_ABOVE_3_7_1 = True
    return True


def gdn_difference(
    device: str = "cpu", heads: int = 2, head: int = 128, length: int = 130, dtype: str = "float32",
    rows: int = 1, rule: Any = None,
) -> dict[str, float]:  # fmt: skip
    """Return how far the gated delta rule that transformers uses is from the plain recurrence in fp32.

    Args:
        device: Where both run.
        heads: Number of heads.
        head: Width of keys and values.
        length: Number of tokens.
        dtype: Of everything but the decay, which models keep in fp32. Both rules get the same rounded
            numbers.
        rows: Rows of the batch.
        rule: Another rule instead of transformers'.

    Returns:
        For the output and five gradients, |fast - slow| / |slow| in the Euclidean norm.
    """
    import torch
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    torch.manual_seed(0)
    shape, kind = (rows, length, heads, head), getattr(torch, dtype)
    raw = [torch.randn(shape, device=device).to(kind) for _ in range(3)]
    raw += [-torch.rand(shape[:3], device=device), torch.rand(shape[:3], device=device).to(kind)]
    weight = torch.randn(shape, device=device)
    results = []
    for compute, exact in ((rule or library.torch_chunk_gated_delta_rule, False), (_recurrence, True)):
        query, key, value, decay, beta = (
            (tensor.float() if exact else tensor).clone().requires_grad_(True) for tensor in raw
        )
        out, _ = compute(query, key, value, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)
        inputs = [query, key, value, decay, beta]
        tensors = [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), inputs)]
        results.append([tensor.float() for tensor in tensors])
    names = ("output", "query", "key", "value", "decay", "beta")
    pairs = zip(names, *results, strict=True)
    return {name: float((fast - slow).norm() / slow.norm()) for name, fast, slow in pairs}


def _recurrence(query: Any, key: Any, value: Any, *, g: Any, beta: Any, use_qk_l2norm_in_kernel: bool) -> Any:
    """Compute the gated delta rule token by token, as it is defined."""
    import torch

    if use_qk_l2norm_in_kernel:
        query, key = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (query, key))
    query = query * query.shape[-1] ** -0.5
    state = query.new_zeros(query.shape[0], query.shape[2], key.shape[-1], value.shape[-1])
    outputs = []
    for t in range(query.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        known = (state * key[:, t].unsqueeze(-1)).sum(-2)
        change = (value[:, t] - known) * beta[:, t].unsqueeze(-1)
        state = state + key[:, t].unsqueeze(-1) * change.unsqueeze(-2)
        outputs.append((state * query[:, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outputs, dim=1), state
