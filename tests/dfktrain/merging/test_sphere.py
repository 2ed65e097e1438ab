"""The mean on the sphere."""

from __future__ import annotations

import math

import pytest

from dfkdata.common.errors import ConfigError
from dfktrain.merging.sphere import sphere_mean


def test_two_vectors_meet_on_the_great_circle_and_opposite_ones_are_refused() -> None:
    import torch

    cosines = torch.tensor([[1.0, 0.2], [0.2, 1.0]], dtype=torch.float64)
    found = sphere_mean(cosines, torch.tensor([0.7, 0.3], dtype=torch.float64), "x")
    angle = math.acos(0.2)
    assert found.tolist() == pytest.approx(
        [math.sin(0.7 * angle) / math.sin(angle), math.sin(0.3 * angle) / math.sin(angle)]
    )
    against = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ConfigError, match="layer x: the adapters point in opposite directions"):
        sphere_mean(against, torch.tensor([0.5, 0.5], dtype=torch.float64), "x")
