"""What this machine would run: versions and which of them are known not to work together, and which kernels.

Rules come from reading and running the named releases; each says what to install instead."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import BackendError
from dfkdata.common.versions import release
from dfkeval.models.families import family_of
from dfktrain.training.manifest import versions as installed


@dataclass(frozen=True)
class Version:
    """One package. fault: why this version, in this company, cannot be used; None where it can. stops: the
    run would use it, so the fault stops it."""

    package: str
    version: str
    fault: str | None = None
    stops: bool = False


@dataclass(frozen=True)
class Kernel:
    """What computes one part of the network, and why that and nothing faster."""

    part: str
    choice: str
    why: str


UNSLOTH_ONLY = ("unsloth", "unsloth_zoo", "trl")
"""Packages that only engine unsloth imports; beside another engine their faults stop nothing."""

UNSLOTH_LIMITS = {"transformers": (5, 17, 0), "trl": (1, 15, 0)}
"""Newest releases that the tested Unsloth accepts."""


def versions(engine: str = "transformers") -> list[Version]:
    """Installed packages that a run on `engine` depends on, each with its fault."""
    found = installed()
    used = [package for package in found if engine == "unsloth" or package not in UNSLOTH_ONLY]
    faults = {package: fault(package, found) for package in found}
    return [
        Version(package, version, faults[package], stops=faults[package] is not None and package in used)
        for package, version in found.items()
    ]


def fault(package: str, found: dict[str, str]) -> str | None:
    """Why `package` cannot be used among `found`, None if it can."""
    version = release(found[package])
    match package:
        case "torch" if version < (2, 9):
            return f"torch {found[package]} is too old; install torch>=2.9"
        case "transformers" if not (5, 17) <= version < (5, 24):
            return f"transformers {found[package]} is untested; install transformers>=5.17,<5.24"
        case "peft" if not (0, 21) <= version < (0, 22):
            return f"peft {found[package]} is untested; install peft>=0.21,<0.22"
        case "unsloth":
            return _unsloth_company(found)
        case "trl" if version == (1, 15, 0) and not _cuda():
            return f"trl {found[package]} cannot train on a CPU (its head needs Triton); install trl!=1.15.0"
        case "flash-linear-attention" | "fla-core" if not _cuda():
            return f"{package} crashes without a GPU (transformers binds it when imported); uninstall it here"
        case _:
            return None


def _unsloth_company(found: dict[str, str]) -> str | None:
    """The first package that the tested Unsloth does not accept beside it."""
    for other, newest in UNSLOTH_LIMITS.items():
        if release(found.get(other, "0")) > newest:
            wanted = ".".join(map(str, newest))
            return (
                f"unsloth {found['unsloth']} needs {other}<={wanted}, found {found[other]}; install that one"
            )
    return None


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def kernels(model_type: str, attention: str) -> list[Kernel]:
    """What computes the gated delta rule and its convolution (hybrid models), attention and the head."""
    found = [
        Kernel("attention", attention, "as configured"),
        Kernel("head and loss", "own, chunked", "logits at scored positions only"),
    ]
    return [*_hybrid(), *found] if family_of(model_type).hybrid else found


def _hybrid() -> list[Kernel]:
    fla, conv = (importlib.util.find_spec(name) is not None for name in ("fla", "causal_conv1d"))
    slow = "flash-linear-attention is not installed; on a GPU it is over 10 times faster"
    return [
        Kernel("gated delta rule", "fla" if fla else "torch", _why_fla() if fla else slow),
        Kernel("causal convolution", "causal_conv1d", "installed")
        if conv
        else Kernel("causal convolution", "torch", "causal_conv1d is not installed (it has no wheel)"),
    ]


def _why_fla() -> str:
    """What is known of the fast kernel on this machine before it is tried."""
    checked = "installed; its value and gradients are compared with the plain rule before the first step"
    return f"{checked}; {REFUSED_ON_HOPPER}" if _refused_on_hopper(installed()) else checked


REFUSED_ON_HOPPER = (
    "fla refuses its backward pass on this GPU with triton 3.4.0 to 3.7.0 and without tilelang; the refusal "
    "is lifted for that comparison and stays lifted only if it holds (surer: triton>=3.7.1 or tilelang)"
)


def _refused_on_hopper(found: dict[str, str]) -> bool:
    """Whether fla's own gate against a miscompiled block size is closed here."""
    import torch

    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9 or "tilelang" in found:
        return False
    return (3, 4, 0) <= release(found.get("triton", "0")) < (3, 7, 1)


GDN_LIMIT = 2e-2
"""Largest relative difference of the fast gated delta rule to the plain recurrence that is taken for
rounding."""


def require_gated_delta_rule(device: str, heads: int = 16, head: int = 128) -> dict[str, float]:
    """The differences of the bound rule on `device`, checked. Raises `BackendError` if it is wrong or does
    not run.

    `heads` and `head`: the model's own, and bf16 as in training, because the kernels that are tuned for the
    check are then the ones that training uses; for other shapes they would be tuned twice, minutes each.

    fla 0.6.0 refuses its backward pass on Hopper GPUs with triton 3.4.0 to 3.7.0, because a block size that
    this head width does not use is miscompiled there; the refusal is lifted for the check, and stays lifted
    only if value and all gradients are right."""
    lifted = _lift_refusal()
    way_out = "install triton>=3.7.1 or tilelang, or uninstall flash-linear-attention (slower, but right)"
    try:
        found = gdn_difference(device, heads=heads, head=head, dtype="bfloat16")
    except RuntimeError as error:
        raise BackendError(f"the fast gated delta rule does not run here: {error}; {way_out}") from error
    wrong = [
        name for name, difference in found.items() if not difference <= GDN_LIMIT
    ]  # NaN is wrong as well
    if wrong:
        worst = wrong[0]
        raise BackendError(
            f"the fast gated delta rule is wrong on this GPU: {worst} differs by {found[worst]:.1e}"
            f"{' with its own refusal lifted' if lifted else ''}; {way_out}"
        )
    return found


def _lift_refusal() -> bool:
    if importlib.util.find_spec("fla") is None or importlib.util.find_spec("tilelang") is not None:
        return False
    module: Any = importlib.import_module("fla.ops.common.chunk_o")
    if getattr(module, "TRITON_ABOVE_3_7_1", True):
        return False
    module.TRITON_ABOVE_3_7_1 = True
    return True


def gdn_difference(
    device: str = "cpu", heads: int = 2, head: int = 128, length: int = 130, dtype: str = "float32"
) -> dict[str, float]:
    """Relative difference of the bound gated delta rule to the plain recurrence in fp32: output and five
    gradients, each |fast - slow| / |slow| in the Euclidean norm.

    Some releases of the fast kernels compute wrong gradients on some GPUs without a word; a figure above
    2e-2 says so. `head`: key and value width. `dtype`: of everything but the decay, which models keep in
    fp32; both rules get the same rounded numbers."""
    import torch
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    torch.manual_seed(0)
    shape, kind = (1, length, heads, head), getattr(torch, dtype)
    raw = [torch.randn(shape, device=device).to(kind) for _ in range(3)]
    raw += [-torch.rand(shape[:3], device=device), torch.rand(shape[:3], device=device).to(kind)]
    weight = torch.randn(shape, device=device)
    results = []
    for rule, exact in ((library.torch_chunk_gated_delta_rule, False), (_recurrence, True)):
        query, key, value, decay, beta = (
            (tensor.float() if exact else tensor).clone().requires_grad_(True) for tensor in raw
        )
        out, _ = rule(query, key, value, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)
        inputs = [query, key, value, decay, beta]
        found = [out.detach(), *torch.autograd.grad((out.float() * weight).sum(), inputs)]
        results.append([tensor.float() for tensor in found])
    names = ("output", "query", "key", "value", "decay", "beta")
    pairs = zip(names, *results, strict=True)
    return {name: float((fast - slow).norm() / slow.norm()) for name, fast, slow in pairs}


def _recurrence(query: Any, key: Any, value: Any, *, g: Any, beta: Any, use_qk_l2norm_in_kernel: bool) -> Any:
    """The gated delta rule token by token, as its definition reads."""
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


def activation_bytes(text: Any, width: int, *, checkpointed: bool) -> float:
    """Bytes of activations that a token keeps for the backward pass; an estimate.

    Fitted to one measurement: 61.9 GiB for 8,192 tokens of a 0.8B hybrid model in bf16 with torch kernels.
    With checkpointing a token keeps its layer inputs and what one layer needs."""
    hidden, layers = text.hidden_size, text.num_hidden_layers
    a_layer = (48 + 8 * text.intermediate_size / hidden) * hidden * width * 2
    return float(layers * hidden * width + a_layer if checkpointed else layers * a_layer)


def tokens_per_second(parameters: int) -> float:
    """A rough rate: 28,000 tokens a second for 0.85 billion parameters on an H200, 5,000 for 4 million on
    two CPU cores; inversely with size."""
    return 28_000 * 0.85e9 / parameters if _cuda() else min(10_000.0, 5_000 * 4e6 / parameters)
