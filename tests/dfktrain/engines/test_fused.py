"""Fused layers compute what the library's layers compute, and keep those where they cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfktrain.config.model import AdapterConfig
from dfktrain.data.collator import Collator
from dfktrain.data.packing import Packer, conv_by_sequence, patch_fallbacks
from dfktrain.engines import (
    CROSS_ENTROPY,
    LoadedBase,
    _delta_rule,
    _fused,
    _picture_attention,
    adapt,
    fused_layers,
    trainable,
)
from dfktrain.engines._adapter_products import fused_products
from dfktrain.losses.attach import score_answers
from dfktrain.losses.kl_to_base import AdapterDisabledTeacher, KLToBase, kl_to_base
from dfktrain.training.contexts import adapters_in_bf16
from tests.helpers.models import image_row, text_row

pytest.importorskip("triton")


def test_every_kernel_equals_pytorch_in_value_and_gradients() -> None:
    code = [sys.executable, "-m", "tests.helpers.triton_kernels"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(code, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    differences = json.loads(done.stdout)
    assert len(differences) > 40
    assert max(differences.values()) <= 1e-6, max(differences, key=differences.__getitem__)


def silu_conv(x: Tensor, weight: Tensor, bias: Tensor | None, numbers: Tensor | None) -> Tensor:
    if numbers is None:
        numbers = torch.zeros(x.shape[:2], dtype=torch.int32)
    return conv_by_sequence(x.transpose(1, 2), weight, bias, "silu", numbers).transpose(1, 2)


def normed(x: Tensor, weight: Tensor, eps: float, *, offset: float = 1.0) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * (weight.float() + offset)).to(x)


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)


def gated(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    return normed(x, weight, eps, offset=0.0) * nn.functional.silu(gate)


def cross_entropy_(logits: Tensor, targets: Tensor, shares: Tensor | None) -> Tensor:
    wide = logits.detach().float().requires_grad_(True)
    with torch.enable_grad():
        terms = nn.functional.cross_entropy(wide, targets, reduction="none")
        terms = terms if shares is None else terms * shares
        (slope,) = torch.autograd.grad(terms.sum(), wide)
    logits.copy_(slope)
    return terms.detach()


def kl_to_base_(
    logits: Tensor, base: Tensor, targets: Tensor, shares: Tensor | None, part: float, heat: float
) -> Tensor:
    wide = logits.detach().float().requires_grad_(True)
    with torch.enable_grad():
        ce = nn.functional.cross_entropy(wide, targets, reduction="none")
        known, soft = ((each.float() / heat).log_softmax(-1) for each in (base, wide))
        kl = (known.exp() * (known - soft)).sum(-1)
        terms = torch.stack([ce, kl]) if shares is None else torch.stack([ce, kl]) * shares
        (slope,) = torch.autograd.grad(((1 - part) * terms[0] + part * terms[1]).sum(), wide)
    logits.copy_(slope)
    return terms.detach()


def attend(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, _: Tensor, most: int, __: int
) -> Tensor:
    """Attention over borders, one stretch after the other."""
    lengths = (borders[1:] - borders[:-1]).tolist()
    assert most == max(lengths)
    parts = zip(*(each.split(lengths) for each in (query, key, value)), strict=True)
    rows = [
        nn.functional.scaled_dot_product_attention(*(each.transpose(0, 1) for each in part)) for part in parts
    ]
    return torch.cat([row.transpose(0, 1) for row in rows])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels' functions in PyTorch, so that whole models run on a CPU in no time."""
    module = types.ModuleType("dfktrain.engines._triton_ops")
    for name, function in (
        ("rms_norm", normed),
        ("gated_rms_norm", gated),
        ("unit_length", lambda x: unit(x)),
        ("swiglu", lambda gate, up: nn.functional.silu(gate) * up),
        ("causal_conv_silu", silu_conv),
        ("cross_entropy_", cross_entropy_),
        ("kl_to_base_", kl_to_base_),
    ):
        setattr(module, name, function)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("dfktrain.engines._triton_ops", module, raising=False)
    module.attend = attend  # type: ignore[attr-defined] # PyTorch's, which needs a GPU
    stand_in: Any = module
    monkeypatch.setattr(_picture_attention, "_kernel", lambda: lambda *given: stand_in.attend(*given))
    monkeypatch.setattr(_delta_rule, "takes_borders", lambda: True)
    patch_fallbacks("qwen3_5")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return module


def adapted(model: Any, processor: Any, **options: Any) -> Any:
    torch.manual_seed(1)
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=4, alpha=8, **options))
    with torch.no_grad():
        for _, parameter in trainable(made):
            parameter.normal_(std=0.05)
    score_answers(made)
    return made.train()


@pytest.fixture
def rows(pictures: list[str]) -> list[dict[str, Any]]:
    return [
        image_row("a", pictures[:2], "berita " * 20, "Label: Fitnah"),
        text_row("b", "x", "Label: Netral dan benar"),
        image_row("c", pictures[2:3], "a red circle", "blue square"),
    ]


def step(
    model: Any, batch: dict[str, Tensor], *, fused: bool, bf16: bool = False
) -> tuple[float, Tensor, Any]:
    """Return loss, flat gradient and what was fused."""
    model.zero_grad()
    with (
        adapters_in_bf16(model, bf16),
        fused_layers(model, fused) as found,
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        loss = model(**batch).loss
    loss.backward()
    gradient = torch.cat([each.grad.flatten() for _, each in trainable(model) if each.grad is not None])
    return loss.item(), gradient, found


ALL = {
    "norms", "gated norms", "SwiGLU", "convolution", "cross entropy", "KL to the base", "picture attention",
    "adapter products", "gated delta rule", "padding",
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
def test_a_step_with_fused_layers_has_the_loss_and_gradient_of_the_librarys(
    model: Any, processor: Any, rows: list[Any], kernels: Any, packed: bool
) -> None:
    made = adapted(model, processor)
    collator = Collator(processor)
    if packed:
        patch_fallbacks(model.config.model_type)
    batch = (Packer(collator) if packed else collator)(rows)
    loss, gradient, nothing = step(made, batch, fused=False)
    ours, same, found = step(made, batch, fused=True)
    assert nothing == {} and found == dict.fromkeys(ALL, "on")
    assert ours == pytest.approx(loss, rel=1e-5)
    assert float((same - gradient).norm() / gradient.norm()) <= 1e-5


def test_in_bf16_the_fused_step_is_as_near_to_fp32_as_the_librarys(
    model: Any, processor: Any, rows: list[Any], kernels: Any
) -> None:
    made = adapted(model, processor)
    batch = Collator(processor)(rows)
    _, exact, _ = step(made, batch, fused=False)
    for parameter in made.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    _, library, _ = step(made, batch, fused=False, bf16=True)
    _, ours, found = step(made, batch, fused=True, bf16=True)
    assert set(found.values()) == {"on"}
    cosine = nn.functional.cosine_similarity
    apart = [1 - float(cosine(exact.double(), each.double(), dim=0)) for each in (library, ours)]
    assert apart[1] <= 1.5 * apart[0]


def test_the_sizes_of_the_pictures_are_asked_for_once_a_batch(
    model: Any, processor: Any, rows: list[Any], kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    right = _picture_attention._Longest.__call__

    def counted(self: Any, borders: Tensor) -> int:
        before = self.borders
        length = right(self, borders)
        asked.append(self.borders is not before)
        return length

    monkeypatch.setattr(_picture_attention._Longest, "__call__", counted)
    made = adapted(model, processor)
    with fused_layers(made, True):
        asked.clear()
        for batch in (Collator(processor)(rows), Collator(processor)(rows[:1])):
            made(**batch)
    assert len(asked) == 2 * len(made.get_base_model().model.visual.blocks) and sum(asked) == 2


def test_after_the_context_the_model_is_as_before(
    model: Any, processor: Any, rows: list[Any], kernels: Any
) -> None:
    import transformers.models.qwen3_5.modeling_qwen3_5 as library

    made = adapted(model, processor)
    batch = Collator(processor)(rows)
    first, gradient, _ = step(made, batch, fused=False)
    convolve, rule = library.causal_conv1d_fn, library.torch_chunk_gated_delta_rule
    drawn = torch.get_rng_state()
    with fused_layers(made, True):
        assert library.causal_conv1d_fn is not convolve
        assert library.torch_chunk_gated_delta_rule is not rule
    assert torch.equal(torch.get_rng_state(), drawn) and library.torch_chunk_gated_delta_rule is rule
    again, same, _ = step(made, batch, fused=False)
    assert library.causal_conv1d_fn is convolve and not hasattr(made.get_base_model(), CROSS_ENTROPY)
    assert again == first and torch.equal(gradient, same)


KERNELS = [
    ("rms_norm", "norms"), ("gated_rms_norm", "gated norms"), ("swiglu", "SwiGLU"),
    ("causal_conv_silu", "convolution"), ("unit_length", "gated delta rule"), ("cross_entropy_", "cross entropy"),
    ("kl_to_base_", "KL to the base"), ("attend", "picture attention"),
]  # fmt: skip
WRONG = ["value", "gradient", "nan", "error"]


@pytest.mark.parametrize(
    ("name", "part", "wrong"),
    [  # a wrong gradient of each, and one other fault; all of them are slow
        pytest.param(*kernel, wrong, marks=() if wrong in ("gradient", other) else pytest.mark.slow)
        for kernel, other in zip(KERNELS, ["value", "nan", "error"] * 3, strict=False)
        for wrong in WRONG
    ],
)
def test_a_kernel_that_is_wrong_keeps_the_librarys_layer_and_says_why(
    model: Any, processor: Any, rows: list[Any], kernels: Any, name: str, part: str, wrong: str
) -> None:
    right = getattr(kernels, name)

    def broken(x: Tensor, *rest: Any, **options: Any) -> Tensor:
        if wrong == "error":
            raise RuntimeError("no kernel image is available")
        out = right(x, *rest, **options)
        if name in ("cross_entropy_", "kl_to_base_"):  # its gradient is what it leaves in its input
            x.mul_({"value": 1.0, "gradient": 0.9, "nan": float("nan")}[wrong])
        changed = out * {"value": 1.01, "gradient": 1.0, "nan": float("nan")}[wrong]
        return changed if wrong != "gradient" else out.detach() + 0.9 * (out - out.detach())

    setattr(kernels, name, broken)
    made = adapted(model, processor)
    batch = Collator(processor)(rows)
    loss, _, _ = step(made, batch, fused=False)
    ours, _, found = step(made, batch, fused=True)
    assert ours == pytest.approx(loss, rel=1e-5)
    reason = "does not run here (RuntimeError: no kernel" if wrong == "error" else "differs from the"
    assert found[part].startswith(reason)
    assert {each for each, state in found.items() if state == "on"} == ALL - {part}


def test_without_a_gpu_the_reason_is_told_and_only_products_are_fused(
    model: Any, processor: Any, rows: list[Any]
) -> None:
    _, _, found = step(adapted(model, processor), Collator(processor)(rows), fused=True)
    assert found == dict.fromkeys(ALL - {"adapter products"}, "no GPU") | {"adapter products": "on"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"dora": True}, "variant"),
        ({"kind": "full"}, "there is no LoRA adapter"),
    ],
)
def test_adapters_that_the_product_does_not_cover_stay_peft_s(
    processor: Any, model: Any, options: dict[str, Any], reason: str
) -> None:
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(**options))
    with fused_products(made, model) as found:
        assert reason in found


def test_weights_that_are_trained_keep_the_librarys_layers(model: Any, processor: Any, kernels: Any) -> None:
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(kind="full"))
    with fused_layers(made, True) as found:
        assert found["norms"] == found["gated norms"] == found["convolution"] == "their weights are trained"
        assert found["SwiGLU"] == "on"


def test_the_teacher_of_sft_plus_runs_the_base_through_the_same_layers(
    model: Any, processor: Any, rows: list[Any]
) -> None:
    made = adapted(model, processor)
    inputs = {name: value for name, value in Collator(processor)(rows).items() if name != "labels"}
    teacher = AdapterDisabledTeacher(made, made.get_base_model())
    base = teacher.states(inputs)
    with fused_products(made, made.get_base_model()) as found:
        assert found == "on"
        assert torch.equal(teacher.states(inputs), base)
        tuned = made.get_base_model().model(**inputs, use_cache=False).last_hidden_state
    assert not torch.allclose(tuned, base, atol=1e-3)


@pytest.mark.parametrize("weighed", [False, True])
def test_sft_plus_with_its_kernel_has_the_same_loss_and_gradient(
    model: Any, processor: Any, rows: list[Any], kernels: Any, weighed: bool
) -> None:
    made = adapted(model, processor)
    batch = Collator(processor)(rows)
    if weighed:
        batch["loss_weights"] = torch.linspace(0.5, 2, batch["labels"].numel()).view_as(batch["labels"])
    net = made.get_base_model()
    with kl_to_base(net, KLToBase(AdapterDisabledTeacher(made, net), 0.4, 2.0)):
        loss, gradient, _ = step(made, batch, fused=False)
        ours, same, found = step(made, batch, fused=True)
    assert found["KL to the base"] == "on"
    assert ours == pytest.approx(loss, rel=1e-5)
    assert float((same - gradient).norm() / gradient.norm()) <= 1e-5


def test_a_model_of_another_family_keeps_its_layers(model: Any, processor: Any, kernels: Any) -> None:
    model.config.model_type = "qwen2_vl"
    with ExitStack() as stack:
        assert set(_fused._layers(stack, model).values()) == {"not built for qwen2_vl models"}
