"""A chat template is found by name or in a file."""

from __future__ import annotations

from typing import Any

import pytest

from dfkdata.common.errors import ConfigError
from dfkeval.models import tiny
from dfktrain.engines import _chat_template


def test_a_template_is_found_by_the_models_own_name_and_a_wrong_name_lists_them(processor: Any) -> None:
    class Holder:
        chat_template = {"default": "one", "rag": "two"}

    assert _chat_template.text(Holder(), "rag") == "two"
    assert _chat_template.text(processor, "qwen3_5") == (tiny.path() / "chat_template.jinja").read_text()
    with pytest.raises(ConfigError, match=r"no template has that name \(there are default, qwen3_5, rag\)"):
        _chat_template.text(Holder(), "rga")
