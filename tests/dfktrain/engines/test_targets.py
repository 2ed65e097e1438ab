"""Which linear layers carry the adapter."""

from __future__ import annotations

from typing import Any

import pytest

from dfkdata.common.errors import ConfigError
from dfktrain.engines import target_modules


def test_an_adapter_on_the_tied_head_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="'lm_head' is the head, whose weight is the embedding's too"):
        target_modules(model, ("q_proj", "lm_head"))
