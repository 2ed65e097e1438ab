"""The first gradient is checked, and a run that learns nothing stops."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dfkdata.common.errors import BackendError
from dfktrain.training.callbacks.progress import ProgressCallback, check_norm, gradient_norm


def test_a_gradient_of_zero_stops_the_run() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.grad = torch.zeros(2, 2)
    with pytest.raises(BackendError, match=r"norm 0\.0: nothing would be trained"):
        check_norm(gradient_norm(layer))
    layer.weight.grad[0, 0] = float("nan")
    with pytest.raises(BackendError, match="norm nan"):
        check_norm(gradient_norm(layer))
    layer.weight.grad[0, 0] = 1.0
    check_norm(gradient_norm(layer))


@pytest.mark.parametrize(("norm", "stops"), [(0.5, False), (0.0, True)])
def test_deepspeed_which_keeps_no_gradient_is_asked_for_its_norm(norm: float, stops: bool) -> None:
    engine = SimpleNamespace(get_global_grad_norm=lambda: torch.tensor(norm))
    watch: Any = ProgressCallback("s", None, lambda: 0.0)
    watch.trainer = SimpleNamespace(deepspeed=engine)
    with pytest.raises(BackendError, match="norm 0") if stops else contextlib.nullcontext():
        watch.on_pre_optimizer_step(None, SimpleNamespace(global_step=0), None, model=torch.nn.Linear(2, 2))
