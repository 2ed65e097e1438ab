"""What the patched forward returns (see `engines.transformers.score_answers`); imports transformers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AnswerOutput(ModelOutput):
    """loss: summed over scored tokens, what is minimised. ce, kl: its two parts, where SFT-Plus is on."""

    loss: Tensor | None = None
    ce: Tensor | None = None
    kl: Tensor | None = None
