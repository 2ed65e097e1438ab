"""Settings of fla's kernels that are known are kept, and nothing else is."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from dfkeval.models.fla_settings import HEAD, HOPPER, Setting, keep_for, keep_settings, settings_for


def configuration(blocks: dict[str, int], warps: int, stages: int) -> Any:
    return types.SimpleNamespace(kwargs=blocks, num_warps=warps, num_stages=stages)


def library(monkeypatch: pytest.MonkeyPatch, listed: list[Any], wrapped: bool = True) -> Any:
    """A stand-in for a module of fla; what computes heuristics wraps what tunes."""
    tuner = types.SimpleNamespace(configs=list(listed), fn=types.SimpleNamespace())
    module = types.ModuleType("fla_stand_in")
    module.kernel = types.SimpleNamespace(fn=tuner) if wrapped else tuner  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, "fla_stand_in", module)
    return tuner


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_kernel_keeps_the_one_setting_that_won(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    listed = [configuration({"BV": size}, warps, 2) for size in (32, 64) for warps in (2, 4)]
    tuner = library(monkeypatch, listed, wrapped)
    assert keep_settings((Setting("fla_stand_in", "kernel", {"BV": 64}, 2, 2),)) == []
    assert tuner.configs == [listed[2]]


@pytest.mark.parametrize(
    "setting",
    [
        Setting("fla_stand_in", "kernel", {"BV": 128}, 2, 2),  # a size that this release does not list
        Setting("fla_stand_in", "other", {}, 2, 2),
        Setting("no_such_module", "kernel", {}, 2, 2),
    ],
)
def test_what_the_installed_release_does_not_list_is_tuned_as_before(
    monkeypatch: pytest.MonkeyPatch, setting: Setting
) -> None:
    listed = [configuration({"BV": 32}, 2, 2), configuration({"BV": 64}, 2, 2)]
    tuner = library(monkeypatch, listed)
    assert keep_settings((setting,)) == [setting.kernel]
    assert tuner.configs == listed


def test_settings_are_known_for_one_kind_of_gpu_and_one_width_of_heads() -> None:
    assert settings_for((9, 0), 128) == HOPPER and len({each.kernel for each in HOPPER}) == len(HOPPER)
    assert settings_for((8, 0), 128) == () and settings_for((9, 0), 64) == () and HEAD == 128


@pytest.mark.parametrize(
    ("head", "found", "asked"), [(128, True, [HEAD]), (None, True, []), (128, False, [])]
)
def test_a_loaded_network_keeps_the_settings_of_its_own_heads(
    monkeypatch: pytest.MonkeyPatch, head: int | None, found: bool, asked: list[int]
) -> None:
    module, heads = "dfkeval.models.fla_settings", []
    monkeypatch.setattr(f"{module}.importlib.util.find_spec", lambda name: object() if found else None)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(f"{module}.settings_for", lambda card, width: heads.append(width) or ())
    text = types.SimpleNamespace(**({} if head is None else {"linear_key_head_dim": head}))
    config = types.SimpleNamespace(get_text_config=lambda: text)
    assert keep_for(types.SimpleNamespace(config=config, device="cuda")) == [] and heads == asked


@pytest.mark.gpu
def test_the_installed_fla_lists_every_setting() -> None:
    pytest.importorskip("fla")
    assert keep_settings(HOPPER) == []
