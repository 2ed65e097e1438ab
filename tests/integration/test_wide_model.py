"""The built-in model in its second shape, which servers' kernels take: it says what the built-in one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dfkeval.backends import transformers
from dfkeval.types import Sampling
from tests.helpers import real_servers

pytest.importorskip("torch")


def test_the_wide_model_has_the_widths_of_the_released_ones_and_the_answers_of_the_built_in_one(
    tmp_path: Path,
) -> None:
    from tools.tiny_model import wide

    folder = wide.write(tmp_path / "wide")
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    assert text["linear_key_head_dim"] == text["linear_value_head_dim"] == 128
    asked = real_servers.questions(tmp_path / "pictures", each=1)
    said = []
    for model in ("tiny", str(folder)):
        backend = transformers.start(transformers.Config(model=model, dtype="float32", device="cpu"))
        answers = {each.id: each for each in backend.generate(asked, Sampling(max_new_tokens=40))}
        said.append({name: each.text for name, each in answers.items()})
        backend.close()
    assert said[0] == said[1] and any("</parameter>" in text for text in said[0].values())


def test_the_interval_of_full_attention_that_some_loaders_read_fits_the_list_of_layers() -> None:
    from dfkeval.models import tiny

    text = json.loads((tiny.path() / "config.json").read_text(encoding="utf-8"))["text_config"]
    interval = text["full_attention_interval"]
    kinds = [
        "linear_attention" if (at + 1) % interval else "full_attention"
        for at in range(text["num_hidden_layers"])
    ]
    assert kinds == text["layer_types"]
