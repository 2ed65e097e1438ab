"""A model to train that several files share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dfktrain.config.model import AdapterConfig
from dfktrain.engines import LoadedBase, adapt, trainable
from dfktrain.losses.attach import score_answers


@pytest.fixture
def adapted(model: Any, processor: Any) -> Any:
    """A model with an adapter that is not at its start, so that every weight has a gradient."""
    torch.manual_seed(1)
    made, _ = adapt(LoadedBase(model, processor, "random"), AdapterConfig(rank=4, alpha=4))
    with torch.no_grad():
        for name, parameter in trainable(made):
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    score_answers(made)
    return made.train()
