"""A new entry in `dfkeval.models.families` is all that training needs to know of a model family."""

from __future__ import annotations

import importlib.util
import types

import pytest
from torch import nn

from dfkdata.common.errors import ConfigError
from dfkeval.models import video
from dfkeval.models.families import FAMILIES, ModelFamily
from dfktrain.data import packing
from dfktrain.engines import _chat_template, _model_config, kernels, target_modules
from dfktrain.training import sharding


class Net(nn.Module):
    """A network whose tower and recurrent layer have names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.ModuleDict({"qkv": nn.Linear(2, 2)})
        self.layer = nn.ModuleDict({"recurrence": nn.ModuleDict({"in": nn.Linear(2, 2)})})
        self.mlp = nn.ModuleDict({"up": nn.Linear(2, 2)})


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("recurrence",)
    family = ModelFamily(
        vision=("eyes",), linear_attention=names, unserved=names, video_processor_class="FilmProcessor",
        packable=True, chat_template="chat_template.jinja",
    )  # fmt: skip
    monkeypatch.setitem(FAMILIES, "new_vl", family)


def test_target_modules_follow_the_names_of_the_entry() -> None:
    net = Net()
    assert target_modules(net, "vision") == ["eyes.qkv"]
    assert target_modules(net, "language") == ["layer.recurrence.in", "mlp.up"]
    assert target_modules(net, "servable") == ["mlp.up"]


def test_the_entry_is_a_supported_family(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = types.SimpleNamespace(model_type="new_vl")
    monkeypatch.setattr(_model_config, "model_config", lambda source: settings)
    assert _model_config.require_vision_family("here") == "new_vl"
    settings.model_type = "another_vl"
    with pytest.raises(ConfigError, match=r"supported are .*new_vl"):
        _model_config.require_vision_family("here")


def test_the_entry_says_whether_samples_may_be_packed() -> None:
    with pytest.raises(ConfigError, match="packing is not verified for new_vl_text"):
        packing.patch_fallbacks("new_vl_text")
    with pytest.raises(ModuleNotFoundError, match="new_vl"):  # accepted, but the library has no such module
        packing.patch_fallbacks("new_vl")


def test_kernels_and_template_and_videos_are_those_of_the_entry() -> None:
    assert "gated delta rule" in [kernel.part for kernel in kernels("new_vl", "sdpa")]
    assert "im_start" in _chat_template.text(None, "new_vl")
    processor = types.SimpleNamespace(image_processor=object())
    fault = str(video.video_fault(processor))
    assert ("FilmProcessor" if importlib.util.find_spec("torchvision") else "torchvision") in fault


def test_the_tower_of_the_entry_runs_on_every_rank() -> None:
    body = Net()
    body.config = types.SimpleNamespace(model_type="new_vl")  # type: ignore[assignment]
    body.language_model = nn.Identity()
    with sharding.vision_on_every_rank(body, True):
        assert body._forward_pre_hooks and body.language_model._forward_pre_hooks
    assert not body._forward_pre_hooks
