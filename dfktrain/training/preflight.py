"""Preflight: what a run would do, found out without a GPU, without weights and without training.

Strategy: rows go through the encoder that training uses, so what is counted here is what will be trained on;
the network is built from its config on the meta device, so its size is exact and costs nothing.
Promises: opens image headers only; reports every row that would be refused, with its reason, and goes on;
time and memory are estimates and are called so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from dfkdata.common.errors import ConfigError, DataError
from dfkeval.models import families
from dfktrain.config.run import AdapterConfig, Stage, TrainConfig
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
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
    """What one stage would see. lengths, scored, image_tokens, video_tokens: a number for each sample. steps:
    on one device."""

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
    """Parameters of the base, and of what is trained; modules: the linear layers that carry an adapter."""

    base: int
    trained: int
    modules: list[str]


@dataclass
class Preflight:
    """The whole preflight. faults: what would stop the run. collator: of the last stage, for showing
    samples."""

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


def plan(config: TrainConfig) -> Preflight:
    """The preflight of `config`. Raises `ConfigError` or `BackendError` only where nothing can be looked
    at."""
    report = Preflight()
    _machine(report, config)
    report.versions = check_versions(report.engine)
    report.faults += [version.fault for version in report.versions if version.fault and version.stops]
    processor, network = outline(config)
    report.kernels = kernels(network.config.model_type, config.model.attention)
    report.size = _size(network, config.adapter, report.faults)
    for index, stage in enumerate(config.stages):
        report.collator = Collator(processor, max_length=stage.max_length, max_pixels=stage.max_pixels)
        report.stages.append(_stage(stage, report.collator, config.seed, index, report.faults))
    _estimate(report, config, network)
    report.notes = _serving(report.size)
    if config.adapter.kind == "full" and (passed := extra_tensors.ignored_patterns(network)):
        names = ", ".join(passed)
        report.notes.append(
            f"tensors that the model's class does not load ({names}) are kept as the base has them"
        )
    return report


def _machine(report: Preflight, config: TrainConfig) -> None:
    """Engine, precision, and the keys that they cannot honour; what cannot run here is a fault, and the plan
    goes on."""
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


def _serving(size: Size | None) -> list[str]:
    """What servers do with such an adapter."""
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


def _stage(stage: Stage, collator: Collator, seed: int, index: int, faults: list[str]) -> StagePreflight:
    found = StagePreflight(stage.name)
    data = StageData()
    try:
        data = read_stage(stage, collator, seed, found.refused)
        found.validation = len(read_validation(stage, collator))
    except DataError as error:
        faults.append(str(error))
    if found.refused:
        faults.append(f"stage {stage.name}: {len(found.refused)} rows cannot be trained on")
    found.samples = data.samples
    found.lengths = [len(sample) for sample in data.samples]
    found.scored = [sample.scored for sample in data.samples]
    found.image_tokens = [_times(collator.image_id, sample) for sample in data.samples]
    found.video_tokens = [_times(collator.video_id, sample) for sample in data.samples]
    found.left_out = dict(data.left_out)
    found.pixels = [count * _pixels_a_token(collator) for count in found.image_tokens if count]
    found.steps = steps(stage, found.lengths, seed=seed + index)
    found.micro_tokens = micro_tokens(stage, found.lengths)
    found.notes = _notes(stage, found) + _controls(data.controls)
    return found


def _times(token: int | None, sample: EncodedSample) -> int:
    return 0 if token is None else sample.input_ids.count(token)


def _pixels_a_token(collator: Collator) -> int:
    images = collator.image_processor
    return 0 if images is None else int(images.patch_size * images.merge_size) ** 2


def _notes(stage: Stage, found: StagePreflight) -> list[str]:
    notes = []
    if found.samples and not any(sample.sees for sample in found.samples):
        notes.append("text only: the vision tower is not trained in this stage")
    if stage.label_weights is not None:
        weights = {sample.value: sample.weight for sample in found.samples}
        shown = ", ".join(f"{value} {weight:.3g}" for value, weight in sorted(weights.items()))
        notes.append(f"loss weights by {stage.label_weights.field}: {shown} (their mean over tokens is 1)")
    if found.steps and stage.warmup_steps and stage.warmup_steps >= found.steps:
        notes.append(f"warmup_steps {stage.warmup_steps} reaches over all {found.steps} steps")
    if stage.packing and any(found.video_tokens):
        notes.append("packing is not proved for rows with video: batches are padded instead")
    if stage.sft_plus is not None and stage.sft_plus.share:
        notes.append("SFT-Plus asks the base for every batch: a second forward pass, without gradients")
    return notes


def _controls(found: dict[str, str]) -> list[str]:
    if not found:
        return []
    row, token = next(iter(found.items()))
    says = f"{len(found)} rows say a control token in their text, such as {row}: {token}"
    return [f"{says}; the tokenizer obeys it (`dfkdata convert` quarantines such rows)"]


def steps(stage: Stage, lengths: list[int], ranks: int = 1, seed: int = 0) -> int:
    """Optimiser steps of the stage. seed: that of its order, on which packed batches depend."""
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
    """Tokens of the largest micro-batch, padding included."""
    if not lengths:
        return 0
    if stage.batch_tokens is not None:
        return max(stage.batch_tokens, max(lengths))
    longest = sorted(lengths)[-stage.batch_size :]
    return sum(longest) if stage.packing else longest[-1] * len(longest)


def _estimate(report: Preflight, config: TrainConfig, network: Any) -> None:
    """Peak memory and time, from sizes and rules of thumb measured on single machines."""
    if report.size is None or not any(stage.lengths for stage in report.stages):
        return
    text = network.config.get_text_config()
    width = 2 if report.precision.startswith("bf16") else 4
    weights = report.size.base * (0.6 if config.adapter.kind == "qlora" else width)
    trained = report.size.trained * 16  # fp32 weight, gradient and two moments
    a_token = activation_bytes(text, width, checkpointed=config.checkpointing != "none")
    activations = a_token * max(stage.micro_tokens for stage in report.stages)
    report.memory_gib = (weights + trained + activations) / 2**30
    tokens = sum(_tokens(stage, asked) for stage, asked in zip(report.stages, config.stages, strict=True))
    report.seconds = tokens / tokens_per_second(report.size.base)


def _tokens(found: StagePreflight, stage: Stage) -> float:
    """Tokens that the stage would train on."""
    if not found.lengths:
        return 0.0
    if stage.steps is None:
        return (stage.epochs or 1.0) * sum(found.lengths)
    a_step = (
        stage.batch_tokens or stage.batch_size * sum(found.lengths) / len(found.lengths)
    ) * stage.accumulation
    return stage.steps * a_step


def activation_bytes(text: Any, width: int, *, checkpointed: bool) -> float:
    """Bytes of activations that a token keeps for the backward pass; an estimate.

    Fitted to one measurement: 61.9 GiB for 8,192 tokens of a 0.8B hybrid model in bf16 with torch kernels.
    With checkpointing a token keeps its layer inputs and what one layer needs."""
    hidden, layers = text.hidden_size, text.num_hidden_layers
    a_layer = (48 + 8 * text.intermediate_size / hidden) * hidden * width * 2
    return float(layers * hidden * width + a_layer if checkpointed else layers * a_layer)


def tokens_per_second(parameters: int) -> float:
    """A rough rate: 28,000 tokens a second for 0.85 billion parameters on an H200, 5,000 for 4 million on
    two CPU cores; inversely with size."""
    return (
        28_000 * 0.85e9 / parameters if torch.cuda.is_available() else min(10_000.0, 5_000 * 4e6 / parameters)
    )
