"""Train one stage: its rows, its Trainer, its weights and its record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import metadata
from dfkeval.models.families import is_packable
from dfktrain.config.launch import is_main_process, process_count
from dfktrain.config.stage import Stage
from dfktrain.data.collator import Collator
from dfktrain.data.masking import EncodedSample
from dfktrain.data.packing import Packer, packing_fault
from dfktrain.data.pixels import byte_pixels
from dfktrain.data.positions import PositionedCollator, positioned
from dfktrain.data.shared_prompt import stage_prompts
from dfktrain.data.stage_data import StageData, read_stage
from dfktrain.engines import WIDTHS, bare, trainable
from dfktrain.losses.kl_to_base import KLToBase
from dfktrain.reports import curves
from dfktrain.reports.curves import plot
from dfktrain.reports.curves.usage import Usage, UsageMeter
from dfktrain.training import manifest
from dfktrain.training.arguments import loader_workers, training_arguments
from dfktrain.training.checkpoints import last_complete, token_counts
from dfktrain.training.contexts import stage_forward, vision_frozen
from dfktrain.training.state import RunState, StageResult
from dfktrain.weights import checkpoint

if TYPE_CHECKING:  # it imports transformers, and Unsloth has to be imported before
    from dfktrain.training.trainer import AnswerTrainer

ROOM = 64 * 1024**3
"""Bytes of a GPU on which layers are recorded without being asked for."""

_LOGGED = (
    "step",
    "epoch",
    "loss",
    "ce",
    "kl",
    "grad_norm",
    "learning_rate",
    "eval_loss",
    "eval_ce",
    "eval_kl",
)

Batcher = Collator | PositionedCollator | Packer
"""What makes batches of a stage."""


@dataclass
class _StageInputs:
    """A stage with everything that is read before its first step."""

    index: int
    stage: Stage
    folder: Path
    collator: Collator
    data: StageData
    validation: list[EncodedSample] | None
    fingerprint: str

    @property
    def text_only(self) -> bool:
        return not any(sample.sees for sample in self.data.samples)


def finish_stage(run: RunState, index: int, facts: dict[str, Any], before: str | None) -> StageResult:
    """Train the stage, or load its weights if it was trained before.

    Args:
        run: The run; its model is trained or gets the stage's weights.
        index: Place of the stage in the configuration.
        facts: What all stages of the run share, as `manifest.run_facts` returns it.
        before: Fingerprint of the stage before, None for the first.

    Returns:
        What was trained.

    Raises:
        ConfigError: The stage's folder belongs to another configuration, or there is nothing to train.
        DataError: A row cannot be trained on.
        BackendError: Training fails, or sharded training has to be started again for the next stage.
    """
    stage = run.config.stages[index]
    folder = run.out / "stages" / stage.name
    collator = Collator(run.base.processor, max_length=stage.max_length, max_pixels=stage.max_pixels)
    data = read_stage(stage, collator, run.config.seed)
    fingerprint = manifest.fingerprint(facts, manifest.stage_facts(stage, data), before)
    result = _finished(folder, fingerprint)
    if result is not None:
        checkpoint.restore(run.model, folder / "adapter")
        return result
    if is_main_process():
        json_files.write_json(folder / "started.json", {"fingerprint": fingerprint}, floats="repr")
    base = metadata.BaseRecord(name=run.base.name, shapes_sha256=run.base.shapes_sha256)
    card = manifest.model_metadata(data, stage, base, run.template, run.config.adapter)
    result, gathered = _train(
        run, _StageInputs(index, stage, folder, collator, data, run.validation.get(index), fingerprint)
    )
    checkpoint.save(run.base, run.model, folder / "adapter", card, gathered)
    if is_main_process():
        json_files.write_json(folder / "stage.json", asdict(result) | {"adapter": "adapter"}, floats="repr")
        if plot.available():
            for suffix in plot.FORMATS:
                plot.draw(curves.from_stage(asdict(result)), folder / f"curves{suffix}")
    if gathered is not None and index + 1 < len(run.config.stages):
        raise BackendError(
            f"stage {stage.name} is done and saved. Sharded training takes one stage a launch: give the same "
            f"command again and it goes on with stage {run.config.stages[index + 1].name}"
        )
    run.gathered = gathered
    return result


def _finished(folder: Path, fingerprint: str) -> StageResult | None:
    """Return the stage's result if it was finished before."""
    started = json_files.read_json_or_none(folder / "started.json")
    if started is not None and started.get("fingerprint") != fingerprint:
        raise ConfigError(
            f"{folder} holds a stage of another configuration, another base or other data; "
            f"choose another --out or delete that folder"
        )
    record = json_files.read_json_or_none(folder / "stage.json")
    if record is None:
        return None
    try:
        usage = Usage(**record["usage"]) if record.get("usage") else None
        return StageResult(**(record | {"adapter": folder / "adapter", "usage": usage}))
    except TypeError as error:
        raise ConfigError(
            f"{folder / 'stage.json'}: not a stage of this version; choose another --out"
        ) from error


def _train(run: RunState, inputs: _StageInputs) -> tuple[StageResult, dict[str, torch.Tensor] | None]:
    """Return the result and, if the weights are sharded over several processes, the whole weights."""
    from dfktrain.training.callbacks.progress import ProgressCallback

    stage, folder = inputs.stage, inputs.folder
    progress, meter = ProgressCallback(stage.name, run.on_progress, run.clock), UsageMeter()
    resume = last_complete(folder / "checkpoints")
    batcher, packing = _batcher(run, inputs)
    if _records(run, inputs.text_only) and not isinstance(batcher, Packer):
        inputs.collator.multiple = WIDTHS
    if _numbers_on_device() and not inputs.text_only and is_packable(bare(run.model).config.model_type):
        inputs.collator.byte_pixels = byte_pixels(inputs.collator.image_processor)
    with vision_frozen(run.model, inputs.text_only):
        if not trainable(run.model):
            raise ConfigError(
                f"stage {stage.name} has text only and the adapter sits on the vision tower: nothing to train"
            )
        trainer = _trainer(run, inputs, batcher, progress)
        if resume is not None:
            trainer.tokens, trainer.scored = (torch.tensor(count) for count in token_counts(resume))
        with stage_forward(
            run.model,
            bf16=run.precision == "bf16",
            kl=_kl_to_base(run, stage),
            vision_on_all_ranks=checkpoint.sharded(trainer) and not inputs.text_only,
            fused=_fuses(run) and not checkpoint.sharded(trainer),
            graphs=_records(run, inputs.text_only) and not checkpoint.sharded(trainer),
        ) as fused:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    gathered = checkpoint.gathered(trainer)
    if run.config.adapter.kind != "full" and gathered is None:
        samples = inputs.data.samples
        sample = next((sample for sample in samples if sample.sees), samples[0])
        verify_effect(run.model, trainer._prepare_inputs(inputs.collator([sample])))
    seconds = round(run.clock() - progress.start, 3)
    usage = meter.read(seconds, int(trainer.tokens))
    if _fuses(run) and not fused:
        fused = {"all": "the weights are sharded"}
    return _result(inputs, trainer, {"packing": packing, "fused": fused}, seconds, usage), gathered


def _fuses(run: RunState) -> bool:
    """Return whether layers are fused where they can be."""
    if run.config.fused_layers is not None:
        return run.config.fused_layers
    return run.engine == "transformers" and next(run.model.parameters()).device.type == "cuda"


def _records(run: RunState, text_only: bool) -> bool:
    """Return whether layers are replayed from CUDA graphs where they can be: by default on text, which has few shapes
    of batches, where a GPU has memory to spare, since each shape keeps some."""
    if run.config.cuda_graphs is not None:
        return run.config.cuda_graphs
    if (
        not text_only
        or not _fuses(run)
        or process_count() > 1
        or next(run.model.parameters()).device.type != "cuda"
    ):
        return False
    memory: int = torch.cuda.get_device_properties(next(run.model.parameters()).device).total_memory
    return memory >= ROOM


def _numbers_on_device() -> bool:
    """Return whether batches hold pictures as bytes: memory and copies count where a GPU waits for them."""
    available: bool = torch.cuda.is_available()
    return available


def _trainer(run: RunState, inputs: _StageInputs, batcher: Batcher, progress: Any) -> AnswerTrainer:
    """Return the stage's Trainer with its callbacks, which know it."""
    import transformers

    from dfktrain.training.callbacks import monitor, trackers
    from dfktrain.training.callbacks.progress import CurvesCallback
    from dfktrain.training.trainer import AnswerTrainer

    stage, folder = inputs.stage, inputs.folder
    monitors = monitor.callbacks(run.config, stage, folder, run.model, run.base.processor, run.precision)
    stoppers = [transformers.EarlyStoppingCallback(stage.patience)] if stage.patience else []
    trainer = AnswerTrainer(
        group_by_length=stage.group_by_length,
        batch_tokens=stage.batch_tokens,
        packed=isinstance(batcher, Packer),
        multiple=inputs.collator.multiple,
        pixels=inputs.collator.byte_pixels,
        model=run.model,
        args=training_arguments(
            run.config,
            stage,
            inputs.index,
            run.precision,
            folder / "checkpoints",
            loader_workers(run.config, pictures=not inputs.text_only),
        ),
        train_dataset=inputs.data.samples,
        eval_dataset=inputs.validation,
        data_collator=batcher,
        callbacks=[
            progress,
            CurvesCallback(
                run.out / curves.PAGE, run.out.name, stage.name, run.earlier, run.clock, run.config.lang
            ),
            *monitors,
            *stoppers,
            *trackers.callbacks(run.config, stage, folder),
        ],
    )
    # the library prints log lines to stdout, which is kept for results
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.remove_callback(transformers.ProgressCallback)
    for callback in (progress, *monitors):
        callback.trainer = trainer
    return trainer


def _batcher(run: RunState, inputs: _StageInputs) -> tuple[Batcher, str]:
    """Return what makes batches, and "off", "on" or the reason why samples are not packed."""
    collator, samples = inputs.collator, inputs.data.samples
    padded = positioned(collator, bare(run.model).config.model_type)
    if not inputs.stage.packing:
        return padded, "off"
    if any(sample.videos for sample in samples):
        return padded, "refused: packing is not verified for rows with video"
    packer = Packer(collator)
    by_length = sorted(samples, key=len)
    probes = [by_length[0], by_length[len(by_length) // 2], *(sample for sample in samples if sample.images)][
        :3
    ]
    fault = packing_fault(bare(run.model).model, packer, probes, run.config.model.attention)
    return (packer, "on") if fault is None else (padded, f"refused: {fault}")


def _kl_to_base(run: RunState, stage: Stage) -> KLToBase | None:
    setting = stage.sft_plus
    if run.teacher is None or setting is None or not setting.share:
        return None
    return KLToBase(run.teacher, setting.share, setting.temperature)


def _result(
    inputs: _StageInputs, trainer: AnswerTrainer, found: dict[str, Any], seconds: float, usage: Usage
) -> StageResult:
    lines = [
        {key: value for key, value in line.items() if key in _LOGGED or key.startswith("watch/")}
        for line in trainer.state.log_history
    ]
    prompts = stage_prompts(inputs.data, inputs.collator.processor)
    return StageResult(
        name=inputs.stage.name,
        adapter=inputs.folder / "adapter",
        fingerprint=inputs.fingerprint,
        steps=trainer.state.global_step,
        seconds=seconds,
        samples=len(inputs.data.samples),
        tokens=int(trainer.tokens),
        scored_tokens=int(trainer.scored),
        packing=found["packing"],
        fused=found["fused"],
        left_out=dict(inputs.data.left_out),
        data_sha256=inputs.data.sha256,
        history=[line for line in lines if line.keys() - {"step", "epoch"}],
        usage=usage,
        prompt=next(iter(prompts)) if len(prompts) == 1 and not inputs.data.shapeless else None,
        prompts=prompts,
    )


def verify_effect(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Check that a trained adapter changes what the model computes.

    Args:
        model: The model with its adapter.
        batch: A batch of the collator, on the model's device.

    Raises:
        BackendError: The hidden states are the same without the adapter.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        tuned = bare(model).model(**inputs, use_cache=False).last_hidden_state
        with model.disable_adapter():
            plain = bare(model).model(**inputs, use_cache=False).last_hidden_state
    model.train(was_training)
    if torch.equal(tuned, plain):
        raise BackendError(
            "the trained adapter does not change the model's output; nothing was learned or it is not in use"
        )
