"""The reference is the base with its adapter attached, as PEFT reads it."""

from __future__ import annotations

from pathlib import Path

from dfktrain.merging import reference
from dfktrain.weights import lora


def test_an_adapter_in_the_models_own_spelling_is_attached_as_it_is(
    base: Path, plain: Path, tmp_path: Path
) -> None:
    net = reference.load_network(base, "float32", "cpu")
    found = lora.read(plain)
    assert reference._loadable(found, net, tmp_path) == plain and not list(tmp_path.iterdir())
