"""Report what a run would do, without a GPU, without weights and without training.

How it works: rows go through the collator that training uses, so the counts are those of the training. The
network is built from its configuration on the meta device, so its size is exact and takes no memory.

Guarantees:
    - Only headers of images are read.
    - Every row that training would refuse is reported with its reason.
    - Time and memory are estimates and are called so."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.models import families
from dfktrain.config.model import AdapterConfig
from dfktrain.config.run import TrainConfig
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
from dfktrain.data.sampled_collator import SampledCollator
from dfktrain.data.stage_data import StageData, read_stage, read_validation
from dfktrain.engines import (
    Kernel,
    PackageVersion,
    check_versions,
    kernels,
    outline,
    select_engine,
    select_precision,
    target_modules,
    unsupported,
)
from dfktrain.weights import extra_tensors


@dataclass
class StagePreflight:
    """What one stage would train on.

    Attributes:
        name: Name of the stage.
        samples: Its samples.
        lengths, scored, image_tokens, video_tokens: Numbers of tokens of each sample.
        pixels: Pixels of each sample with images.
        left_out: Reason -> number of rows.
        refused: Why rows cannot be trained on.
        validation: Number of validation samples.
        steps: Optimiser steps on one device.
        micro_tokens: Tokens of the largest micro-batch.
        notes: What the user should know.
    """

    name: str
    samples: list[EncodedSample] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    image_tokens: list[int] = field(default_factory=list)
    video_tokens: list[int] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    validation: int = 0
    steps: int = 0
    micro_tokens: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Size:
    """Size of a network.

    Attributes:
        base: Parameters of the base.
        trained: Parameters that are trained.
        modules: Linear layers with an adapter.
    """

    base: int
    trained: int
    modules: list[str]


@dataclass
class Preflight:
    """What a run would do.

    Attributes:
        stages: Each stage.
        faults: What would stop the run.
        kernels: Kernels of the network.
        versions: Installed packages.
        size: Size of the network, None if no layer would carry an adapter.
        memory_gib: Estimated peak memory.
        seconds: Estimated time.
        engine: Name of the engine.
        precision: Precision and why.
        collator: Collator of the last stage, to show samples.
        notes: What the user should know.
    """

    stages: list[StagePreflight] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    versions: list[PackageVersion] = field(default_factory=list)
    size: Size | None = None
    memory_gib: float | None = None
    seconds: float | None = None
    engine: str = ""
    precision: str = ""
    collator: Collator | None = None
    notes: list[str] = field(default_factory=list)


def preflight(
    config: TrainConfig, progress: Callable[[int], None] | None = None, *, all_rows: bool = False
) -> Preflight:
    """Return what a run of `config` would do; what would stop it is in `faults`.

    Args:
        config: The configuration.
        progress: Called with the number of rows of a stage that were read.
        all_rows: Whether every row is tokenised; of large files some rows stand for the others otherwise
            (`dfktrain.data.sampled_collator`).

    Raises:
        ConfigError: The model's type is not supported.
        BackendError: The model's configuration cannot be read.
    """
    report = Preflight()
    _machine(report, config)
    report.versions = check_versions(report.engine)
    report.faults += [version.fault for version in report.versions if version.fault and version.stops]
    processor, network = outline(config)
    report.kernels = kernels(
        network.config.model_type, config.model.attention, fused=config.fused_layers is not False
    )
    report.size = _size(network, config.adapter, report.faults)
    for index, stage in enumerate(config.stages):
        report.collator = Collator(processor, max_length=stage.max_length, max_pixels=stage.max_pixels)
        reader = SampledCollator(report.collator, progress, everything=all_rows)
        report.stages.append(_stage(stage, reader, config.seed, index, report.faults))
    _estimate(report, config, network)
    report.notes = _serving_notes(report.size)
    if config.adapter.kind == "full" and (patterns := extra_tensors.ignored_patterns(network)):
        names = ", ".join(patterns)
        report.notes.append(
            f"tensors that the model's class does not load ({names}) are kept as the base has them"
        )
    return report


def _machine(report: Preflight, config: TrainConfig) -> None:
    """Report engine, precision and the keys that they do not support."""
    why = "as configured"
    try:
        report.engine, _ = select_engine(config.engine)
    except ConfigError as error:
        report.engine = config.engine
        report.faults.append(str(error))
    try:
        precision, why = select_precision(config.precision)
    except ConfigError as error:
        precision = config.precision
        report.faults.append(str(error))
    report.precision = f"{precision} ({why})"
    report.faults += unsupported(config, report.engine, precision)


def _serving_notes(size: Size | None) -> list[str]:
    modules = size.modules if size else []
    notes = []
    if any(map(families.is_vision, modules)):
        notes.append("some servers ignore adapters on the vision tower without a word: merge before serving")
    if any(map(families.is_linear_attention, modules)):
        notes.append(
            "some servers ignore adapters on the Gated DeltaNet projections (linear_attn) without a word: "
            "merge before serving, or use target_modules: servable"
        )
    return notes


def _size(network: Any, adapter: AdapterConfig, faults: list[str]) -> Size | None:
    base = sum(parameter.numel() for parameter in network.parameters())
    if adapter.kind == "full":
        return Size(base, base, [])
    try:
        modules = target_modules(network, adapter.target_modules)
    except ConfigError as error:
        faults.append(str(error))
        return None
    layers = dict(network.named_modules())
    ends = sum(layers[name].in_features + layers[name].out_features for name in modules)
    return Size(base, adapter.rank * ends, modules)


def _stage(
    stage: Stage, collator: SampledCollator, seed: int, index: int, faults: list[str]
) -> StagePreflight:
    report = StagePreflight(stage.name)
    data = StageData()
    try:
        data = read_stage(stage, collator, seed, report.refused)
    except DataError as error:
        faults.append(str(error))
    try:
        report.validation = len(read_validation(stage, collator))
    except DataError as error:
        faults.append(str(error))
    if report.refused:
        faults.append(f"stage {stage.name}: {len(report.refused)} rows cannot be trained on")
    report.samples = data.samples
    report.lengths = [len(sample) for sample in data.samples]
    report.scored = [sample.scored for sample in data.samples]
    report.image_tokens = [_count(collator.image_id, sample) for sample in data.samples]
    report.video_tokens = [_count(collator.video_id, sample) for sample in data.samples]
    report.left_out = dict(data.left_out)
    report.pixels = [count * _pixels_per_token(collator) for count in report.image_tokens if count]
    report.steps = steps(stage, report.lengths, seed=seed + index)
    report.micro_tokens = micro_tokens(stage, report.lengths)
    estimated = collator.note(sum(report.lengths))
    report.notes = _notes(stage, report) + _control_notes(data.controls) + ([estimated] if estimated else [])
    return report


def _count(token: int | None, sample: EncodedSample) -> int:
    return 0 if token is None else sample.input_ids.count(token)


def _pixels_per_token(collator: Collator) -> int:
    images = collator.image_processor
    return 0 if images is None else int(images.patch_size * images.merge_size) ** 2


def _notes(stage: Stage, report: StagePreflight) -> list[str]:
    notes = []
    if report.samples and not any(sample.sees for sample in report.samples):
        notes.append("text only: the vision tower is not trained in this stage")
    if stage.label_weights is not None:
        weights = {sample.value: sample.weight / sample.turn_weight for sample in report.samples}
        shown = ", ".join(f"{value} {weight:.3g}" for value, weight in sorted(weights.items()))
        notes.append(f"loss weights by {stage.label_weights.field}: {shown} (their mean over tokens is 1)")
    if own := {sample.turn_weight for sample in report.samples} - {1.0}:
        count = sum(sample.turn_weight != 1 for sample in report.samples)
        notes.append(
            f"{count} samples have a loss weight of their own, from {min(own):.3g} to {max(own):.3g}"
        )
    if report.steps and stage.warmup_steps and stage.warmup_steps >= report.steps:
        notes.append(f"warmup_steps {stage.warmup_steps} reaches over all {report.steps} steps")
    if stage.packing and any(report.video_tokens):
        notes.append("packing is not verified for rows with video: batches are padded instead")
    if stage.sft_plus is not None and stage.sft_plus.share:
        notes.append("SFT-Plus asks the base for every batch: a second forward pass, without gradients")
    return notes


def _control_notes(tokens: dict[str, str]) -> list[str]:
    if not tokens:
        return []
    row, token = next(iter(tokens.items()))
    return [
        f"{len(tokens)} rows say a control token in their text, such as {row}: {token}; "
        f"it is shown as text, with a blank in it (`dfkdata convert` quarantines such rows)"
    ]


def steps(stage: Stage, lengths: list[int], ranks: int = 1, seed: int = 0) -> int:
    """Return the optimiser steps of a stage.

    Args:
        stage: The stage.
        lengths: Tokens of each sample.
        ranks: Number of processes.
        seed: Seed of the stage, on which packed batches depend.
    """
    if stage.steps is not None or not lengths:
        return stage.steps or 0
    if stage.batch_tokens is not None:
        from dfktrain.data.samplers import TokenBudgetSampler

        batches = len(
            TokenBudgetSampler(lengths, stage.batch_tokens, seed, packed=stage.packing, ranks=ranks)
        )
    else:
        batches = math.ceil(len(lengths) / (stage.batch_size * ranks))
    return math.ceil((stage.epochs or 1.0) * math.ceil(batches / stage.accumulation))


def micro_tokens(stage: Stage, lengths: list[int]) -> int:
    """Return the tokens of the largest micro-batch, padding included."""
    if not lengths:
        return 0
    if stage.batch_tokens is not None:
        return max(stage.batch_tokens, max(lengths))
    longest = sorted(lengths)[-stage.batch_size :]
    return sum(longest) if stage.packing else longest[-1] * len(longest)


def _estimate(report: Preflight, config: TrainConfig, network: Any) -> None:
    """Estimate peak memory and time, with rules of thumb that were measured on single machines."""
    if report.size is None or not any(stage.lengths for stage in report.stages):
        return
    text = network.config.get_text_config()
    width = 2 if report.precision.startswith("bf16") else 4
    weights = report.size.base * (0.6 if config.adapter.kind == "qlora" else width)
    trained = report.size.trained * 16  # fp32 weight, gradient and two moments
    per_token = activation_bytes(text, width, checkpointed=config.checkpointing != "none")
    activations = per_token * max(stage.micro_tokens for stage in report.stages)
    report.memory_gib = (weights + trained + activations) / 2**30
    tokens = sum(_tokens(*pair) for pair in zip(report.stages, config.stages, strict=True))
    report.seconds = tokens / tokens_per_second(report.size.base)


def _tokens(report: StagePreflight, stage: Stage) -> float:
    """Return the number of tokens that the stage would train on."""
    if not report.lengths:
        return 0.0
    if stage.steps is None:
        return (stage.epochs or 1.0) * sum(report.lengths)
    per_step = (
        stage.batch_tokens or stage.batch_size * sum(report.lengths) / len(report.lengths)
    ) * stage.accumulation
    return stage.steps * per_step


def activation_bytes(text: Any, width: int, *, checkpointed: bool) -> float:
    """Estimate the bytes of activations that a token keeps for the backward pass.

    The rule is fitted to one measurement: 61.9 GiB for 8,192 tokens of a 0.8B hybrid model in bf16 with torch
    kernels. With checkpointing a token keeps its layer inputs and what one layer needs.

    Args:
        text: Configuration of the language model.
        width: Bytes of a number.
        checkpointed: Whether activations are recomputed.
    """
    hidden, layers = text.hidden_size, text.num_hidden_layers
    per_layer = (48 + 8 * text.intermediate_size / hidden) * hidden * width * 2
    return float(layers * hidden * width + per_layer if checkpointed else layers * per_layer)


def tokens_per_second(parameters: int) -> float:
    """Estimate how many tokens a second a model of this size trains on.

    Measured are 28,000 for 0.85 billion parameters on an H200, and 5,000 for 4 million on two CPU cores; other
    sizes are inversely proportional."""
    if torch.cuda.is_available():
        return 28_000 * 0.85e9 / parameters
    return min(10_000.0, 5_000 * 4e6 / parameters)
