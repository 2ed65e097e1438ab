"""Settings of fla's kernels that won on one kind of GPU, so that nobody waits for them to be tuned again.

How it works: Triton times every setting that a kernel's authors list before the kernel's first use, and compiles
each for that: 195 compilations for the gated delta rule, over two minutes on an empty cache. Where this module
knows the winner for a GPU and for this width of heads, the kernel keeps that one setting and is compiled once.

Guarantees:
    - A setting is only ever chosen from those that the installed fla lists itself; a kernel whose list does not
      hold it is tuned as before.
    - Training still compares values and gradients with the plain rule before the first step."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEAD = 128
"""Width of keys and values for which the settings were timed; all Qwen3.5 models have it."""


@dataclass(frozen=True)
class Setting:
    """The setting that won for one kernel.

    Attributes:
        module: Where fla defines the kernel.
        kernel: Its name.
        blocks: Its block sizes.
        warps, stages: As Triton counts them.
    """

    module: str
    kernel: str
    blocks: Mapping[str, int]
    warps: int
    stages: int


_RULE, _NORM = "fla.ops", "fla.modules.norm"
HOPPER = (
    Setting(f"{_RULE}.common.chunk_o", "chunk_fwd_kernel_o", {"BK": 64, "BV": 64}, 4, 3),
    Setting(f"{_RULE}.common.chunk_o", "chunk_bwd_kernel_dqkwg", {}, 4, 3),
    Setting(f"{_RULE}.common.chunk_o", "chunk_bwd_kernel_dv_local", {}, 2, 2),
    Setting(
        f"{_RULE}.common.chunk_delta_h", "chunk_gated_delta_rule_fwd_kernel_h_blockdim64", {"BV": 64}, 4, 2
    ),
    Setting(
        f"{_RULE}.common.chunk_delta_h", "chunk_gated_delta_rule_bwd_kernel_dhu_blockdim64", {"BV": 32}, 4, 2
    ),
    Setting(
        f"{_RULE}.gated_delta_rule.chunk_fwd", "chunk_gated_delta_rule_fwd_kkt_solve_kernel", {"BK": 64}, 1, 3
    ),
    Setting(f"{_RULE}.gated_delta_rule.wy_fast", "recompute_w_u_fwd_kernel", {}, 4, 3),
    Setting(f"{_RULE}.gated_delta_rule.wy_fast", "prepare_wy_repr_bwd_kernel", {}, 4, 4),
    Setting(f"{_RULE}.utils.cumsum", "chunk_local_cumsum_scalar_kernel", {}, 1, 3),
    Setting(f"{_NORM}.l2norm", "l2norm_fwd_kernel", {"BT": 8}, 2, 3),
    Setting(f"{_NORM}.l2norm", "l2norm_bwd_kernel", {"BT": 16}, 8, 3),
)
"""Timed on an H200 with fla 0.6.0 and triton 3.6.0, rows of 768 tokens, 16 heads."""

_BY_CAPABILITY: Mapping[tuple[int, int], tuple[Setting, ...]] = {(9, 0): HOPPER}


def settings_for(capability: tuple[int, int], head: int) -> tuple[Setting, ...]:
    """Return the settings that are known for GPUs of a compute capability and heads of a width."""
    return _BY_CAPABILITY.get(capability, ()) if head == HEAD else ()


def keep_for(net: Any) -> list[str]:
    """Let fla use the settings that are known for a network on a GPU; return what `keep_settings` returns."""
    import torch

    head = getattr(net.config.get_text_config(), "linear_key_head_dim", None)
    if head is None or importlib.util.find_spec("fla") is None:
        return []
    return keep_settings(settings_for(torch.cuda.get_device_capability(net.device), head))


def keep_settings(settings: tuple[Setting, ...]) -> list[str]:
    """Let each kernel use its one setting from now on.

    Returns:
        Names of the kernels that are still tuned on this machine, because the installed fla does not list the
        setting or does not have the kernel.
    """
    return [setting.kernel for setting in settings if not _keep(setting)]


def _keep(setting: Setting) -> bool:
    tuner = _tuner(setting)
    if tuner is None:
        return False
    wanted = (dict(setting.blocks), setting.warps, setting.stages)
    listed = [each for each in tuner.configs if (each.kwargs, each.num_warps, each.num_stages) == wanted]
    tuner.configs = listed[:1] or tuner.configs
    return bool(listed)


def _tuner(setting: Setting) -> Any:
    """Return what tunes the kernel, None if nothing does."""
    try:
        kernel = getattr(importlib.import_module(setting.module), setting.kernel, None)
    except ImportError:
        return None
    while kernel is not None and not hasattr(kernel, "configs"):
        kernel = getattr(kernel, "fn", None)  # what computes heuristics wraps what tunes
    return kernel
