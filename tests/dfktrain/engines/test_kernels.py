"""Which kernels compute the network, and whether the fast ones are right."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import pytest
import transformers

from dfkdata.common.errors import BackendError
from dfkeval.models.source import model_source
from dfktrain.engines import _kernels
from dfktrain.engines._model_config import model_config


def test_the_head_says_which_kernels_run_and_why() -> None:
    found = {kernel.part: kernel for kernel in _kernels.kernels("qwen3_5", "sdpa")}
    assert found["gated delta rule"].choice == "torch" and "not installed" in found["gated delta rule"].why
    assert "gated delta rule" not in {kernel.part for kernel in _kernels.kernels("qwen2_vl", "sdpa")}


@pytest.mark.parametrize(
    ("triton", "card", "tilelang", "refused"),
    [
        ("3.6.0", (9, 0), False, True),
        ("3.6.0", (9, 0), True, False),
        ("3.7.1", (9, 0), False, False),
        ("3.6.0", (8, 0), False, False),
    ],
)
def test_the_kernel_report_says_where_fla_refuses_hopper(
    monkeypatch: pytest.MonkeyPatch, triton: str, card: tuple[int, int], tilelang: bool, refused: bool
) -> None:
    found = {"triton": triton} | ({"tilelang": "0.1.15"} if tilelang else {})
    real = _kernels.importlib.util.find_spec
    monkeypatch.setattr(
        _kernels.importlib.util, "find_spec", lambda name: real("json" if name == "fla" else name)
    )
    monkeypatch.setattr(_kernels, "package_versions", lambda: found)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: card)
    kernel = _kernels.kernels("qwen3_5", "sdpa")[0]
    assert kernel.choice == "fla" and "compared with the plain rule" in kernel.why
    assert ("refuses its backward pass" in kernel.why) == refused


def test_the_bound_gated_delta_rule_equals_the_plain_recurrence_in_value_and_gradients() -> None:
    differences = _kernels.gdn_difference(head=32, length=130)
    assert set(differences) == {"output", "query", "key", "value", "decay", "beta"}
    assert max(differences.values()) <= 1e-4


def test_a_kernel_with_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    right = library.torch_chunk_gated_delta_rule

    def wrong(query: Any, key: Any, value: Any, *, g: Any, **kwargs: Any) -> Any:
        return right(query, key, value, g=g.detach() + (g - g.detach()) * 0.5, **kwargs)

    monkeypatch.setattr(library, "torch_chunk_gated_delta_rule", wrong)
    differences = _kernels.gdn_difference(head=32, length=70)
    assert differences["output"] <= 1e-4 and differences["decay"] > 0.1


def test_a_fast_kernel_with_a_wrong_gradient_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    good = dict.fromkeys(("output", "query", "key", "value", "decay", "beta"), 1e-3)
    monkeypatch.setattr(_kernels, "gdn_difference", lambda device, **shape: good)
    assert _kernels.check_gated_delta_rule("cuda") == good
    for wrong in (0.3, float("nan")):
        monkeypatch.setattr(
            _kernels, "gdn_difference", lambda device, wrong=wrong, **shape: good | {"decay": wrong}
        )
        with pytest.raises(BackendError, match=r"decay differs by .* uninstall flash-linear-attention"):
            _kernels.check_gated_delta_rule("cuda")


def test_a_fast_kernel_that_does_not_run_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str, **shape: Any) -> dict[str, float]:
        raise RuntimeError("0 active drivers")

    monkeypatch.setattr(_kernels, "gdn_difference", fails)
    with pytest.raises(BackendError, match=r"does not run here: 0 active drivers; install triton>=3\.7\.1"):
        _kernels.check_gated_delta_rule("cuda")


def test_the_kernel_is_checked_before_a_hybrid_model_is_loaded_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int, int]] = []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: sys if name == "fla" else real(name))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(_kernels, "check_gated_delta_rule", lambda *shape: asked.append(shape))
    _kernels.check_kernels(model_config(model_source("tiny")))
    _kernels.check_kernels(transformers.Qwen2VLConfig())
    assert asked == [("cuda", 4, 32)]  # the model's own heads, so that kernels are tuned once


def test_the_refusal_of_the_kernel_library_is_lifted_only_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("fla.ops.common.chunk_o")
    module.TRITON_ABOVE_3_7_1 = False  # type: ignore[attr-defined] # a stand-in for the library's flag
    real = importlib.util.find_spec
    known: dict[str, Any] = {"fla": sys, "tilelang": None}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: known[name] if name in known else real(name)
    )
    monkeypatch.setitem(sys.modules, "fla.ops.common.chunk_o", module)
    assert _kernels._lift_refusal() is True
    assert _kernels._lift_refusal() is False


@pytest.mark.parametrize(("card", "said"), [((9, 0), "are known"), ((8, 0), "takes minutes")])
def test_the_kernel_report_says_whether_the_first_steps_wait_for_tuning(
    monkeypatch: pytest.MonkeyPatch, card: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: card)
    assert said in _kernels._tuning()
