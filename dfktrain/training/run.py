"""The recipe, top to bottom: config -> base and adapter -> for each stage rows, Trainer, save -> manifest.

Strategy: one adapter goes through all stages. Each stage has a fingerprint over everything before it; a
finished stage is loaded instead of trained, an unfinished one goes on from its newest whole checkpoint.
Promises: a run that was killed and started again ends with the weights of an undisturbed one (CPU, fp32); the
final adapter loads on the original base; DIR never mixes two configurations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError
from dfkeval.models import metadata as cards
from dfkeval.models.fingerprint import template_sha256
from dfktrain import hub
from dfktrain.config.launch import is_main_process
from dfktrain.config.run import Stage, TrainConfig
from dfktrain.data.collator import Collator
from dfktrain.data.packing import Packer, refusal
from dfktrain.data.stage_data import StageData, read_stage, read_validation
from dfktrain.engines import LoadedBase, adapt, bare, load_base, package_versions, trainable
from dfktrain.losses.attach import score_answers
from dfktrain.losses.kl_to_base import AdapterDisabledTeacher, FrozenTeacher, KLToBase, Teacher, kl_to_base
from dfktrain.reports import curves, model_card
from dfktrain.reports.curves import plot
from dfktrain.reports.curves.usage import Usage, UsageMeter
from dfktrain.training import manifest, monitor_plan
from dfktrain.training.contexts import adapters_in_bf16, vision_frozen
from dfktrain.training.sharding import vision_on_every_rank
from dfktrain.weights import checkpoint

if (
    TYPE_CHECKING
):  # dfktrain.training.trainer imports transformers, and an engine may have to be imported before it
    from dfktrain.training.trainer import AnswerTrainer, OnProgress


@dataclass(frozen=True)
class StageResult:
    """One finished stage. packing: "off", "on", or why it was refused.

    usage: time and memory, None in runs of before it was measured.
    history: the log lines (step, loss, learning_rate, grad_norm, eval_loss; with SFT-Plus ce, kl and eval_ce,
    eval_kl; of a watch watch/METRIC) in order."""

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


@dataclass(frozen=True)
class TrainResult:
    """A finished run. adapter: DIR/adapter (kind full: the whole model). run: the contents of
    DIR/run.json."""

    adapter: Path
    stages: tuple[StageResult, ...]
    run: dict[str, Any]


@dataclass
class _Run:
    """What the stages of one run share."""

    config: TrainConfig
    out: Path
    base: LoadedBase
    model: Any
    precision: str
    template: str
    on_progress: OnProgress | None
    clock: Callable[[], float]
    teacher: Teacher | None = None
    gathered: dict[str, torch.Tensor] | None = None
    earlier: list[curves.StageCurve] = field(default_factory=list)


def train(config: TrainConfig, out: str | Path, *, progress: OnProgress | None = None) -> TrainResult:
    """Train `config` into `out`: DIR/stages/NAME/adapter, DIR/adapter, DIR/run.json.

    On a finished or interrupted `out` of the same configuration it goes on where that one stopped. Raises
    `ConfigError` or `DataError` before the first step for what cannot work, `BackendError` when training
    fails."""
    monitor_plan.check(config)
    base, engine, precision = load_base(config)
    return train_on(base, config, out, engine=engine, precision=precision, progress=progress)


def train_on(
    base: LoadedBase,
    config: TrainConfig,
    out: str | Path,
    *,
    engine: str = "transformers",
    precision: str = "fp32",
    progress: OnProgress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainResult:
    """`train` on a base that is already loaded. The base carries the adapter afterwards."""
    from transformers import set_seed

    out = Path(out)
    started = clock()
    template = template_sha256(base.processor)
    local = hub.with_local_warm_start(config)
    facts = manifest.run_facts(local, base, template, precision)
    set_seed(config.seed)
    model, modules = adapt(base, local.adapter, engine)
    teacher = _teacher(config, model)
    score_answers(model)
    run = _Run(config, out, base, model, precision, template, progress, clock, teacher)
    results: list[StageResult] = []
    for index, stage in enumerate(config.stages):
        before = results[-1].fingerprint if results else None
        results.append(_stage(run, index, stage, facts, before))
        run.earlier.append(curves.from_stage(asdict(results[-1])))
    adapter = checkpoint.save(base, model, out / "adapter", _card_of(results[-1]), run.gathered)
    report = {
        "format": 1,
        "config": config.model_dump(mode="json"),
        "engine": engine,
        "precision": precision,
        "base": {"name": base.name, "shapes_sha256": base.shapes_sha256},
        "modules": modules,
        "trained_parameters": sum(p.numel() for _, p in trainable(model)),
        "template_sha256": template,
        "seed": config.seed,
        "versions": package_versions(),
        "seconds": round(clock() - started, 3),
        "stages": [asdict(result) | {"adapter": str(result.adapter.relative_to(out))} for result in results],
    }
    if is_main_process():
        json_files.write_json(out / "run.json", report, floats="repr")
        model_card.write(out)
        curves.write(out / curves.PAGE, out.name, run.earlier, finished=True)
    return TrainResult(adapter, tuple(results), report)


def _teacher(config: TrainConfig, model: Any) -> Teacher | None:
    """The base as the teacher of SFT-Plus; None where no stage wants one."""
    if not any(stage.sft_plus and stage.sft_plus.share for stage in config.stages):
        return None
    net = bare(model)
    return FrozenTeacher(net) if config.adapter.kind == "full" else AdapterDisabledTeacher(model, net)


def _keep(run: _Run, stage: Stage) -> KLToBase | None:
    wanted = stage.sft_plus
    if run.teacher is None or wanted is None or not wanted.share:
        return None
    return KLToBase(run.teacher, wanted.share, wanted.temperature)


def _card_of(result: StageResult) -> cards.Card | None:
    """The stage's `dfk.json`; only rank 0 is sure to see it on disk."""
    return cards.read(result.adapter) if is_main_process() else None


def _stage(run: _Run, index: int, stage: Stage, facts: dict[str, Any], before: str | None) -> StageResult:
    folder = run.out / "stages" / stage.name
    collator = Collator(run.base.processor, max_length=stage.max_length, max_pixels=stage.max_pixels)
    data = read_stage(stage, collator, run.config.seed)
    mark = manifest.fingerprint(facts, manifest.stage_facts(stage, data), before)
    done = _finished(folder, mark)
    if done is not None:
        checkpoint.restore(run.model, folder / "adapter")
        return done
    if is_main_process():
        json_files.write_json(folder / "started.json", {"fingerprint": mark}, floats="repr")
    base = cards.Base(name=run.base.name, shapes_sha256=run.base.shapes_sha256)
    card = manifest.card(data, stage, base, run.template, run.config.adapter)
    result, gathered = _train_stage(run, index, stage, data, collator, mark)
    checkpoint.save(run.base, run.model, folder / "adapter", card, gathered)
    if is_main_process():
        json_files.write_json(folder / "stage.json", asdict(result) | {"adapter": "adapter"}, floats="repr")
        if plot.available():
            plot.png(curves.from_stage(asdict(result)), folder / "curves.png")
    if gathered is not None and index + 1 < len(run.config.stages):
        raise BackendError(
            f"stage {stage.name} is done and saved. Sharded training takes one stage a launch: give the same "
            f"command again and it goes on with stage {run.config.stages[index + 1].name}"
        )
    run.gathered = gathered
    return result


def _finished(folder: Path, mark: str) -> StageResult | None:
    """The stage's result if it was finished before. Raises `ConfigError` if `folder` belongs to another
    configuration."""
    started = json_files.read_json_or_none(folder / "started.json")
    if started is not None and started["fingerprint"] != mark:
        raise ConfigError(
            f"{folder} holds a stage of another configuration, another base or other data; "
            f"choose another --out or delete that folder"
        )
    record = json_files.read_json_or_none(folder / "stage.json")
    if record is None:
        return None
    usage = Usage(**record["usage"]) if record.get("usage") else None
    return StageResult(**(record | {"adapter": folder / "adapter", "usage": usage}))


def _train_stage(
    run: _Run, index: int, stage: Stage, data: StageData, collator: Collator, mark: str
) -> tuple[StageResult, dict[str, torch.Tensor] | None]:
    """(what was done, the whole weights where they are sharded over ranks, else None)."""
    from dfktrain.training.callbacks import monitor as watching
    from dfktrain.training.callbacks.curves import CurvesCallback
    from dfktrain.training.callbacks.trackers import callbacks
    from dfktrain.training.trainer import AnswerTrainer, ProgressCallback, counted, last_complete

    folder = run.out / "stages" / stage.name
    text_only = not any(sample.sees for sample in data.samples)
    watch = ProgressCallback(stage.name, run.on_progress, run.clock)
    meter, recorder = (
        UsageMeter(),
        CurvesCallback(run.out / curves.PAGE, run.out.name, stage.name, run.earlier, run.clock),
    )
    resume = last_complete(folder / "checkpoints")
    batcher, packing = _batcher(run, stage, data, collator)
    asks = watching.callbacks(run.config, stage, folder, run.model, run.base.processor, run.precision)
    with vision_frozen(run.model, text_only):
        if not trainable(run.model):
            raise ConfigError(
                f"stage {stage.name} has text only and the adapter sits on the vision tower: nothing to train"
            )
        trainer = AnswerTrainer(
            group_by_length=stage.group_by_length,
            batch_tokens=stage.batch_tokens,
            packed=packing == "on",
            model=run.model,
            args=_arguments(run, index, stage, folder / "checkpoints"),
            train_dataset=data.samples,
            eval_dataset=read_validation(stage, collator) or None,
            data_collator=batcher,
            callbacks=[watch, recorder, *asks, *_stoppers(stage), *callbacks(run.config, stage, folder)],
        )
        _own_output_only(trainer)
        watch.trainer = trainer
        for ask in asks:
            ask.trainer = trainer
        if resume is not None:
            trainer.tokens, trainer.scored = (torch.tensor(count) for count in counted(resume))
        with (
            adapters_in_bf16(run.model, run.precision == "bf16"),
            kl_to_base(bare(run.model), _keep(run, stage)),
            vision_on_every_rank(bare(run.model).model, checkpoint.sharded(trainer) and not text_only),
        ):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    gathered = checkpoint.gathered(trainer)
    if run.config.adapter.kind != "full" and gathered is None:
        seen = next((sample for sample in data.samples if sample.sees), data.samples[0])
        verify_effect(run.model, trainer._prepare_inputs(collator([seen])))
    seconds = round(run.clock() - watch.start, 3)
    result = StageResult(
        name=stage.name,
        adapter=folder / "adapter",
        fingerprint=mark,
        steps=trainer.state.global_step,
        seconds=seconds,
        samples=len(data.samples),
        tokens=int(trainer.tokens),
        scored_tokens=int(trainer.scored),
        packing=packing,
        left_out=dict(data.left_out),
        data_sha256=data.sha256,
        history=[
            line for line in map(_log_line, trainer.state.log_history) if line.keys() - {"step", "epoch"}
        ],
        usage=meter.read(seconds, int(trainer.tokens)),
    )
    return result, gathered


def verify_effect(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Raise `BackendError` unless the adapter changes what the model computes on `batch` (inputs without
    labels)."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "loss_weights")}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        changed = bare(model).model(**inputs, use_cache=False).last_hidden_state
        with model.disable_adapter():
            plain = bare(model).model(**inputs, use_cache=False).last_hidden_state
    model.train(was_training)
    if torch.equal(changed, plain):
        raise BackendError(
            "the trained adapter does not change the model's output; nothing was learned or it is not in use"
        )


def _batcher(run: _Run, stage: Stage, data: StageData, collator: Collator) -> tuple[Collator | Packer, str]:
    """How samples become tensors, and what became of the wish to pack them."""
    if not stage.packing:
        return collator, "off"
    if any(sample.videos for sample in data.samples):
        return collator, "refused: packing is not proved for rows with video"
    packer = Packer(collator)
    spread = sorted(data.samples, key=len)
    few = [spread[0], spread[len(spread) // 2], *(sample for sample in data.samples if sample.images)][:3]
    reason = refusal(bare(run.model).model, packer, few, run.config.model.attention)
    return (packer, "on") if reason is None else (collator, f"refused: {reason}")


def _arguments(run: _Run, index: int, stage: Stage, folder: Path) -> Any:
    """The library's arguments for one stage; everything it would decide by itself is decided here."""
    from transformers import TrainingArguments

    warmup = stage.warmup_ratio if stage.warmup_ratio is not None else stage.warmup_steps
    saves = stage.save_steps or (stage.eval_steps if stage.best else None)
    evaluates = ("steps" if stage.eval_steps else "epoch") if stage.validation else "no"
    cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=stage.epochs or 1.0,
        max_steps=stage.steps or -1,
        per_device_train_batch_size=stage.batch_size,
        per_device_eval_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        warmup_steps=warmup or 0,
        optim=stage.optimizer,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.beta2,
        max_grad_norm=stage.clip,
        bf16=run.precision == "bf16",
        gradient_checkpointing=run.config.checkpointing == "torch",
        gradient_checkpointing_kwargs={"use_reentrant": False}
        if run.config.checkpointing == "torch"
        else None,
        save_strategy="steps" if saves else "epoch",
        save_steps=saves or 500,
        save_total_limit=stage.save_total_limit,
        eval_strategy=evaluates,
        eval_steps=stage.eval_steps,
        load_best_model_at_end=stage.best,
        metric_for_best_model="eval_loss" if stage.best or stage.patience else None,
        greater_is_better=False if stage.best or stage.patience else None,
        logging_steps=stage.log_steps,
        logging_nan_inf_filter=False,
        report_to="none",  # trackers are callbacks of their own
        run_name=run.config.run_name,
        seed=run.config.seed + index,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
    )
    arguments._n_gpu = min(
        arguments.n_gpu, 1
    )  # several GPUs in one process would be DataParallel; use torchrun
    return arguments


def _stoppers(stage: Stage) -> list[Any]:
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(stage.patience)] if stage.patience else []


def _own_output_only(trainer: AnswerTrainer) -> None:
    """The library prints log lines to stdout, which belongs to results."""
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)


def _log_line(line: dict[str, float]) -> dict[str, float]:
    kept = (
        *("step", "epoch", "loss", "ce", "kl", "grad_norm", "learning_rate"),
        "eval_loss",
        "eval_ce",
        "eval_kl",
    )
    return {key: value for key, value in line.items() if key in kept or key.startswith("watch/")}
