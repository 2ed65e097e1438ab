"""Results of a training run, and what its stages share while it runs. Importing it loads no transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfktrain.reports import curves
from dfktrain.reports.curves.usage import Usage

if TYPE_CHECKING:
    from torch import Tensor

    from dfktrain.config.run import TrainConfig
    from dfktrain.data.masking import EncodedSample
    from dfktrain.engines import LoadedBase
    from dfktrain.losses.kl_to_base import Teacher


@dataclass(frozen=True)
class TrainingProgress:
    """How far a stage is.

    Attributes:
        stage: Name of the stage.
        step: Finished optimiser steps.
        steps: Steps of the whole stage.
        loss: Loss of the last logged step, None before the first.
        seconds: Time since the stage began.
    """

    stage: str
    step: int
    steps: int
    loss: float | None
    seconds: float


OnProgress = Callable[[TrainingProgress], None]
"""A function that is called after every optimiser step."""


@dataclass(frozen=True)
class StageResult:
    """A finished stage, as recorded in its `stage.json`.

    Attributes:
        name: Name of the stage.
        adapter: Folder of the weights after the stage.
        fingerprint: Hash of everything that decided the stage's weights.
        steps: Optimiser steps.
        seconds: Time of the training.
        samples: Number of samples in an epoch.
        tokens: Tokens that were trained on, repeated epochs included, padding not.
        scored_tokens: Those of them that carry loss.
        packing: "off", "on", or why samples were not packed although the configuration asks for it.
        left_out: Reason -> number of rows that were left out.
        data_sha256: Data file -> hash of its contents.
        history: The log lines in order, with step, loss, learning_rate, grad_norm and eval_loss; with SFT-Plus
            also ce, kl, eval_ce and eval_kl; with `watch:` also watch/METRIC.
        usage: Time and memory, None in records that were written before it was measured.
        prompts: What the rows ask with, as the model sees it, with names in braces where rows of one shape differ
            -> number of rows, the most frequent first.
        prompt: The only one of these; None if there are several, or in records of older releases.
        fused: With `fused_layers`: part of the network -> "on", or why the library's layers compute it.
    """

    name: str
    adapter: Path
    fingerprint: str
    steps: int
    seconds: float
    samples: int
    tokens: int
    scored_tokens: int
    packing: str
    left_out: dict[str, int]
    data_sha256: dict[str, str]
    history: list[dict[str, float]]
    usage: Usage | None = None
    prompt: str | None = None
    prompts: dict[str, int] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        adapter: The folder `OUT/adapter`, which `dfkeval` loads. With `kind: full` it holds the whole model.
        stages: The result of each stage.
        run: The contents of `OUT/run.json`.

    Example:
        >>> from pathlib import Path
        >>> from dfktrain import TrainResult
        >>> result = TrainResult(Path("run/adapter"), (), {"seed": 42})
        >>> result.adapter.name, result.run["seed"]
        ('adapter', 42)
    """

    adapter: Path
    stages: tuple[StageResult, ...]
    run: dict[str, Any]


@dataclass
class RunState:
    """What the stages of one run share.

    Attributes:
        config: The configuration.
        out: Folder of the run.
        base: The loaded base.
        model: The network with its adapter.
        precision: "fp32" or "bf16".
        template: Hash of the chat template.
        on_progress: Called after every optimiser step.
        clock: Returns seconds.
        teacher: The base as a teacher, if a stage uses SFT-Plus.
        engine: Name of the engine that loaded the base.
        gathered: The whole weights after the last stage, if they are sharded over several processes.
        earlier: Loss curves of the finished stages.
        validation: Place of a stage -> its validation samples, for stages that have any.
    """

    config: TrainConfig
    out: Path
    base: LoadedBase
    model: Any
    precision: str
    template: str
    on_progress: OnProgress | None
    clock: Callable[[], float]
    teacher: Teacher | None = None
    engine: str = "transformers"
    gathered: dict[str, Tensor] | None = None
    earlier: list[curves.StageCurve] = field(default_factory=list)
    validation: Mapping[int, list[EncodedSample]] = field(default_factory=dict)
