"""The types that engines share with their callers, and how to look below wrappers of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from dfktrain.config.model import AdapterConfig
    from dfktrain.config.run import TrainConfig


@dataclass
class LoadedBase:
    """A base model in memory.

    Attributes:
        model: The network, without an adapter.
        processor: Its processor, or its tokenizer if the model sees no images.
        name: Folder or hub name, as configured.
        shapes_sha256: Hash of its parameters' names and shapes, None if it is not known.
        checkpointing: What the engine needs to attach an adapter with gradient checkpointing.
        own_template: Whether its chat template was replaced; a saved adapter then carries the template.
    """

    model: Any
    processor: Any
    name: str
    shapes_sha256: str | None = None
    checkpointing: bool | str = False
    own_template: bool = False


class TrainingEngine(Protocol):
    """The functions of an engine's module; `dfktrain.engines` describes them."""

    def available(self) -> str | None:
        """Return None if the engine can run here, else the reason."""

    def load(self, config: TrainConfig, precision: str) -> LoadedBase:
        """Load the base model."""

    def adapt(self, base: LoadedBase, modules: list[str], config: AdapterConfig) -> Any:
        """Attach an adapter to exactly `modules`."""


def bare(model: Any) -> Any:
    """Return the base network below PEFT and distributed wrappers."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return names and parameters that the optimiser updates."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
