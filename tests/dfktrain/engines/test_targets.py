"""Which linear layers carry the adapter."""

from __future__ import annotations

from typing import Any

import pytest

from dfkdata.common.errors import ConfigError
from dfktrain.config.model import Switches
from dfktrain.engines import target_modules


def test_an_adapter_on_the_tied_head_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="'lm_head' is the head, whose weight is the embedding's too"):
        target_modules(model, ("q_proj", "lm_head"))


def test_presets_resolve_to_one_explicit_list(model: Any) -> None:
    everything = target_modules(model, "all-linear")
    vision = target_modules(model, "vision")
    language = target_modules(model, "language")
    servable = target_modules(model, "servable")
    assert set(vision) | set(language) == set(everything) and not set(vision) & set(language)
    assert any("merger" in name for name in vision)
    assert set(language) - set(servable) == {name for name in language if ".linear_attn." in name} != set()
    assert not any("lm_head" in name for name in everything)
    assert target_modules(model, ("q_proj", "v_proj")) == [
        n for n in everything if n.endswith(("q_proj", "v_proj"))
    ]
    assert target_modules(model, r"re:layers\.0\..*down_proj$") == [
        "model.language_model.layers.0.mlp.down_proj"
    ]
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        target_modules(model, ("q_prj",))
    with pytest.raises(ConfigError, match="names no linear layer"):
        target_modules(model, "re:nothing")


def test_switches_choose_parts(model: Any) -> None:
    everything = target_modules(model, "all")
    assert target_modules(model, Switches()) == everything
    assert target_modules(model, Switches(vision=False, merger=False)) == target_modules(model, "language")
    attention = target_modules(model, Switches(vision=False, merger=False, mlp=False))
    assert attention and all("attn" in name for name in attention)
    assert target_modules(model, Switches(vision=False, language=False)) == [
        n for n in everything if "merger" in n
    ]
