"""Train a configuration from its base to `run.json`.

How it works: one adapter goes through all stages. Each stage has a fingerprint over everything before it. A
finished stage is loaded instead of trained; an unfinished one goes on from its newest whole checkpoint.

Guarantees:
    - A run that was killed and started again ends with the weights of an undisturbed one (CPU, fp32).
    - The final adapter loads on the original base.
    - A run's folder never mixes two configurations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dfkdata.common import json_files, media_roots, plugins
from dfkdata.common.credentials import public
from dfkeval.models import metadata
from dfkeval.models.fingerprint import template_sha256
from dfktrain import hub
from dfktrain.config.launch import is_main_process
from dfktrain.config.run import TrainConfig
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
from dfktrain.data.stage_data import read_validation
from dfktrain.engines import LoadedBase, adapt, bare, load_base, package_versions, require_engine, trainable
from dfktrain.losses.kl_to_base import AdapterDisabledTeacher, FrozenTeacher, Teacher
from dfktrain.reports import curves, model_card
from dfktrain.training import manifest, monitor_plan, splits
from dfktrain.training.stage import finish_stage
from dfktrain.training.state import OnProgress, RunState, StageResult, TrainResult
from dfktrain.weights import checkpoint

_log = logging.getLogger(__name__)


def train(config: TrainConfig, out: str | Path, *, progress: OnProgress | None = None) -> TrainResult:
    """Train a configuration and save the adapter, its record and its loss curves.

    On a folder that holds an interrupted run of the same configuration it goes on where that one stopped; on
    a finished one it returns its result.

    Args:
        config: What to train.
        out: Folder of the run. It gets `adapter/`, `stages/NAME/`, `run.json` and `training.html`.
        progress: Called after every optimiser step.

    Returns:
        The adapter's folder, the result of each stage, and the contents of `run.json`.

    Raises:
        ConfigError: A setting does not work here, or `out` belongs to another configuration.
        DataError: A row cannot be trained on.
        BackendError: The model cannot be loaded, or training fails.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from dfktrain import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp())
        >>> row = {
        ...     "id": "1",
        ...     "messages": [
        ...         {"role": "user", "content": "Is this true?"},
        ...         {"role": "assistant", "content": "Label: Netral"},
        ...     ],
        ...     "images": [],
        ... }
        >>> _ = (folder / "rows.jsonl").write_text(json.dumps(row))
        >>> config = TrainConfig.model_validate(
        ...     {
        ...         "model": {"name": "tiny"},
        ...         "engine": "transformers",
        ...         "precision": "fp32",
        ...         "adapter": {"rank": 4},
        ...         "stages": [{"name": "sft", "data": [str(folder / "rows.jsonl")], "steps": 1}],
        ...     }
        ... )
        >>> result = train(config, folder / "run")
        >>> result.adapter.name, result.stages[0].steps
        ('adapter', 1)
    """
    plugins.trust(config.plugins)
    media_roots.allow(config.media_roots)
    monitor_plan.check(config)
    require_engine(config)
    shared = splits.check(config)
    if is_main_process():
        for warning in shared.warnings:
            _log.warning("%s", warning)
    base, engine, precision = load_base(config)
    return train_on(
        base, config, out, engine=engine, precision=precision, progress=progress, overlap=shared.overlap
    )


def train_on(
    base: LoadedBase,
    config: TrainConfig,
    out: str | Path,
    *,
    engine: str = "transformers",
    precision: str = "fp32",
    progress: OnProgress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    overlap: Mapping[str, Mapping[str, int]] | None = None,
) -> TrainResult:
    """Train as `train` does, on a base that is already loaded and carries the adapter afterwards.

    Args:
        base: The base; `config.model` is not read.
        config: What to train.
        out: Folder of the run.
        engine: Name of the engine that loaded the base.
        precision: "fp32" or "bf16".
        progress: Called after every optimiser step.
        clock: Returns seconds.
        overlap: What held-out files share with training, for run.json; None if they were not compared.
    """
    from transformers import set_seed

    from dfktrain.losses.attach import score_answers

    out = Path(out)
    started = clock()
    template = template_sha256(base.processor)
    local = hub.with_local_warm_start(config)
    facts = manifest.run_facts(local, base, template, precision)
    validation = _validation(config, base.processor)
    set_seed(config.seed)
    model, modules = adapt(base, local.adapter, engine)
    teacher = _teacher(config, model)
    score_answers(model)
    run = RunState(
        config,
        out,
        base,
        model,
        precision,
        template,
        progress,
        clock,
        teacher,
        validation=validation,
        engine=engine,
    )
    results: list[StageResult] = []
    for index in range(len(config.stages)):
        before = results[-1].fingerprint if results else None
        results.append(finish_stage(run, index, facts, before))
        run.earlier.append(curves.from_stage(asdict(results[-1])))
    # only the main process is sure to see the stage's dfk.json on disk
    card = metadata.read(results[-1].adapter) if is_main_process() else None
    adapter = checkpoint.save(base, model, out / "adapter", card, run.gathered)
    record = _record(run, engine, modules, results, round(clock() - started, 3))
    if overlap is not None:
        record["overlap"] = {side: dict(counts) for side, counts in overlap.items()}
    if is_main_process():
        json_files.write_json(out / "run.json", record, floats="repr")
        model_card.write(out)
        curves.write(out / curves.PAGE, out.name, run.earlier, finished=True, lang=config.lang)
    return TrainResult(adapter, tuple(results), record)


def _validation(config: TrainConfig, processor: Any) -> dict[int, list[EncodedSample]]:
    """Return the validation samples of every stage, so that rows which cannot be used stop the run at once."""
    samples = {}
    for index, stage in enumerate(config.stages):
        if stage.validation:
            collator = Collator(processor, max_length=stage.max_length, max_pixels=stage.max_pixels)
            samples[index] = read_validation(stage, collator)
    return samples


def _teacher(config: TrainConfig, model: Any) -> Teacher | None:
    """Return the base as the teacher of SFT-Plus, None if no stage uses it."""
    if not any(stage.sft_plus and stage.sft_plus.share for stage in config.stages):
        return None
    network = bare(model)
    return FrozenTeacher(network) if config.adapter.kind == "full" else AdapterDisabledTeacher(model, network)


def _record(
    run: RunState, engine: str, modules: list[str], results: list[StageResult], seconds: float
) -> dict[str, Any]:
    """Return the contents of run.json."""
    return {
        "format": 1,
        "config": public(run.config.model_dump(mode="json")),
        "engine": engine,
        "precision": run.precision,
        "base": {"name": run.base.name, "shapes_sha256": run.base.shapes_sha256},
        "modules": modules,
        "trained_parameters": sum(parameter.numel() for _, parameter in trainable(run.model)),
        "template_sha256": run.template,
        "seed": run.config.seed,
        "versions": package_versions(),
        "seconds": seconds,
        "stages": [
            asdict(result) | {"adapter": str(result.adapter.relative_to(run.out))} for result in results
        ],
    }
