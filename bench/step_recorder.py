"""Measure the optimiser steps of whatever trains through `transformers.Trainer`, the same way for everybody.

How it works: two methods of the library are wrapped in this process: `Trainer.training_step`, to count real
and scored tokens of every micro-batch, and `CallbackHandler.on_step_end`, to take the time. The card is
waited for at steps 1, 10 and 100 and after every window only, so a trainer may run ahead of the card between
them. After the timed steps a few are profiled (time in which a kernel runs), then the gradient of a fixed
batch with fixed adapter weights is computed through the trainer's own step and saved, and the run stops. A window
also tells how long the loader was waited for, and how many kernels Triton compiled meanwhile."""

from __future__ import annotations

import os
import statistics
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pieces import began, write_result

MARKS = (1, 10, 100)
"""Steps whose time since the start of the process is reported."""

PROFILED = 3
"""Steps that are profiled after the timed ones; one where a step takes longer than `SLOW_S`."""

STEADY = 10
"""Steps that may still tune kernels; later ones are steady."""

SLOW_S = 1.5
LONG_WINDOW_S = 4.0
"""A window closes after so many seconds, even if it has few steps."""

IGNORE = -100


class StepRecorder:
    """Records one run and writes what it found as a result of the piece.

    steps: timed steps at most. until: seconds since the start of the process after which no timed step
    begins. gate: makes the fixed batch from the trainer; None leaves the gradient out."""

    def __init__(
        self,
        work: Path,
        name: str,
        steps: int,
        until: float,
        gate: Callable[[Any], dict[str, Any]] | None,
        window: int = 5,
    ) -> None:
        self.work, self.name, self.steps, self.until, self.gate = work, name, steps, until, gate
        self.window = window
        self.facts: dict[str, Any] = {"ready_s": None}
        self.trainer: Any = None
        self.reset()

    def reset(self) -> None:
        """Forget all steps: the run starts again with smaller micro-batches."""
        self.marks: dict[int, float] = {}
        self.windows: list[dict[str, float]] = []
        self.counts: list[tuple[Any, Any, int, int]] = []
        self.opened, self.opened_step = 0.0, 0
        self.fetched, self.compiled = 0.0, _compiled()
        self.profiled = PROFILED
        self.profile: Any = None
        self.stop_at: int | None = None
        self.sampler, self.waiting = _Utilisation(), _Waits()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def install(self) -> None:
        """Wrap the library's methods. Call it last: engines replace them when they are imported."""
        from torch.utils.data.dataloader import _BaseDataLoaderIter
        from transformers import Trainer
        from transformers.trainer_callback import CallbackHandler

        step, end = Trainer.training_step, CallbackHandler.on_step_end

        def training_step(trainer: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            self._before(trainer, inputs)
            return step(trainer, model, inputs, *rest, **more)

        def on_step_end(handler: Any, args: Any, state: Any, control: Any) -> Any:
            control = end(handler, args, state, control)
            self._after(state.global_step, control)
            return control

        following = _BaseDataLoaderIter.__next__

        def fetch(loader: Any) -> Any:
            start = time.perf_counter()
            try:
                return following(loader)
            finally:
                self.fetched += time.perf_counter() - start

        _BaseDataLoaderIter.__next__ = fetch
        Trainer.training_step = training_step
        CallbackHandler.on_step_end = on_step_end

    def _before(self, trainer: Any, inputs: dict[str, Any]) -> None:
        if self.facts["ready_s"] is None:
            self.facts["ready_s"] = time.time() - began()
        self.trainer = trainer
        self.counts.append(count(inputs))

    def _after(self, step: int, control: Any) -> None:
        now = time.time() - began()
        whole = step - self.opened_step >= self.window or now - self.opened >= LONG_WINDOW_S
        closes = self.stop_at is None and (step == 1 or whole)
        if step in MARKS or closes:
            _wait_for_card()
            now = time.time() - began()
        if step in MARKS:
            self.marks[step] = now
        if self.stop_at is None:
            if closes:
                self._close_window(step, now)
            if step >= self.steps or now > self.until:
                self._begin_profile(step)
        elif step >= self.stop_at:
            self._finish(control)

    def _close_window(self, step: int, now: float) -> None:
        tokens, scored, rows, width = (int(sum(int(each[at]) for each in self.counts)) for at in range(4))
        self.counts.clear()
        compiled = _compiled()
        if self.opened_step:
            self.windows.append(
                {"step": step, "steps": step - self.opened_step, "seconds": now - self.opened, "tokens": tokens,
                 "scored": scored, "rows": rows, "padded": width, "fetch_s": self.fetched,
                 "compiled": compiled - self.compiled}
            )  # fmt: skip
            self.sampler.start()
        self.opened, self.opened_step = now, step
        self.fetched, self.compiled = 0.0, compiled
        write_result(self.work, self.name, self.found(), partial=True)

    def _begin_profile(self, step: int) -> None:
        _wait_for_card()
        self.sampler.stop()
        self.facts |= memory()
        write_result(self.work, self.name, self.found(), partial=True)
        self.counts.clear()
        self.profiled = PROFILED if self.found().get("step_s", 0.0) < SLOW_S else 1
        self.stop_at = step + self.profiled
        if torch.cuda.is_available():
            self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profile.start()
            self.waiting.start()

    def _finish(self, control: Any) -> None:
        _wait_for_card()
        if self.profile is not None:
            self.profile.stop()
            self.facts["host_waits"] = self.waiting.stop(self.profiled)
            tokens = sum(int(each[0]) for each in self.counts)
            self.facts["profile"] = kernels(self.profile, tokens, self.profiled)
            write_result(self.work, self.name, self.found(), partial=True)
        if self.gate is not None:
            self.facts["gradient"] = self._gradient()
        write_result(self.work, self.name, self.found())
        control.should_training_stop = True

    def _gradient(self) -> dict[str, Any]:
        """Save the gradient of the fixed batch as this trainer computes it."""
        trainer = self.trainer
        model = trainer.model
        moved = seed_adapter(model)
        model.zero_grad(set_to_none=True)
        inputs = {key: value for key, value in self.gate(trainer).items() if value is not None}
        scored = int((inputs["labels"][..., 1:] != IGNORE).sum())
        device = next(model.parameters()).device
        number = torch.tensor(scored, device=device)
        for _ in range(
            2 if self.facts.get("settings", {}).get("cuda_graphs") else 1
        ):  # the second is a replay
            model.zero_grad(set_to_none=True)
            loss = trainer.training_step(trainer.model_wrapped, dict(inputs), number)
        return {"scored": scored, "loss": float(loss), **save_gradient(self.work, self.name, moved)}

    def found(self) -> dict[str, Any]:
        """Return what was measured so far."""
        made: dict[str, Any] = dict(self.facts)
        made |= {f"step_{mark}_s": round(seconds, 2) for mark, seconds in self.marks.items()}
        steady = [each for each in self.windows if each["step"] - each["steps"] >= STEADY]
        steady = steady or self.windows[1:] or self.windows
        if steady:
            rates = [each["tokens"] / each["seconds"] for each in steady]
            seconds, middle = sum(each["seconds"] for each in steady), statistics.median(rates)
            made |= {
                "tokens_per_s": middle, "tokens_per_s_range": [min(rates), max(rates)],
                "tokens_per_s_mean": sum(each["tokens"] for each in steady) / seconds,
                "scored_per_s": statistics.median(each["scored"] / each["seconds"] for each in steady),
                "samples_per_s": statistics.median(each["rows"] / each["seconds"] for each in steady),
                "rows_per_step": sum(each["rows"] for each in steady) / sum(each["steps"] for each in steady),
                "padding_share": 1 - sum(each["tokens"] for each in steady)
                / sum(each["padded"] for each in steady),
                "fetch_share": statistics.median(each["fetch_s"] / each["seconds"] for each in steady),
                "step_s": statistics.median(each["seconds"] / each["steps"] for each in steady),
            }  # fmt: skip
        made |= {"windows": self.windows, "nvml_busy": self.sampler.mean()}
        if "profile" in made and steady and made["profile"].get("busy_s"):
            busy_a_token = made["profile"]["busy_s"] / max(1, made["profile"]["tokens"])
            made["waits"] = 1 - busy_a_token * made["tokens_per_s"]
        return made


def count(inputs: dict[str, Any]) -> tuple[Any, Any, int, int]:
    """Return (real tokens, scored tokens, rows, tokens with padding) of a micro-batch, without a wait."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    labels = inputs["labels"]
    real = ids.numel() if mask is None else mask.sum()
    borders = inputs.get("cu_seq_lens_q")
    rows = ids.shape[0] if borders is None else borders.shape[0] - 1
    return real, (labels[..., 1:] != IGNORE).sum(), rows, ids.numel()


def seed_adapter(model: Any) -> list[tuple[str, Any]]:
    """Give every adapter weight the same seeded value in every process, and return them by plain name.

    B is not zero then, so A has a gradient too."""
    moved = sorted((plain_name(name), each) for name, each in model.named_parameters() if each.requires_grad)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in moved:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return moved


def plain_name(name: str) -> str:
    """Return a parameter's name without what PEFT and wrappers put around it."""
    for part in ("module.", "_orig_mod.", "base_model.model.", ".default"):
        name = name.replace(part, "")
    return name


def save_gradient(work: Path, name: str, moved: list[tuple[str, Any]]) -> dict[str, Any]:
    """Save the flat gradient for the comparison of `gate.compare`."""
    none = [label for label, parameter in moved if parameter.grad is None]
    flat = torch.cat(
        [parameter.grad.float().flatten().cpu() for _, parameter in moved if parameter.grad is not None]
    )
    (work / "gradients").mkdir(parents=True, exist_ok=True)
    names = [label for label, parameter in moved if parameter.grad is not None]
    torch.save({"names": names, "flat": flat}, work / f"gradients/{name}.pt")
    return {"norm": float(flat.norm()), "weights": flat.numel(), "without": len(none)}


def compare(work: Path, name: str, reference: str) -> float | None:
    """Return 1 - cosine of two saved gradients; None if one of them is not there or holds other weights."""
    paths = [work / f"gradients/{each}.pt" for each in (name, reference)]
    if not all(path.is_file() for path in paths):
        return None
    left, right = (torch.load(path) for path in paths)
    if left["names"] != right["names"]:
        return None
    a, b = left["flat"].double(), right["flat"].double()
    return float(1 - torch.dot(a, b) / (a.norm() * b.norm()))


def memory() -> dict[str, Any]:
    """Return the peak of the card's memory in GiB."""
    if not torch.cuda.is_available():
        return {"peak_gib": None, "reserved_gib": None}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_gib": allocated / 2**30, "reserved_gib": reserved / 2**30}


def kernels(profile: Any, tokens: int, steps: int) -> dict[str, Any]:
    """Return the time in which a kernel runs, the number of launches a step and the most costly kernels."""
    spans, seconds, launches = [], Counter[str](), Counter[str]()
    for event in profile.profiler.kineto_results.events():
        if str(event.device_type()).endswith("CUDA"):
            start, length = event.start_ns(), event.duration_ns()
            spans.append((start, start + length))
            seconds[event.name()] += length / 1e9
            launches[event.name()] += 1
    busy, end = 0, 0
    for start, stop in sorted(spans):
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    top = [{"kernel": name[:110], "ms": 1e3 * spent / steps, "launches": launches[name] / steps}
           for name, spent in seconds.most_common(40)]  # fmt: skip
    return {
        "busy_s": busy / 1e9, "tokens": tokens, "steps": steps, "launches": len(spans) / steps,
        "kernels": top,
    }  # fmt: skip


def _compiled() -> int:
    """Return how many kernels lie in Triton's cache."""
    folder = Path(os.environ.get("TRITON_CACHE_DIR", "none"))
    return len(os.listdir(folder)) if folder.is_dir() else 0  # noqa: PTH208  no path is needed


def _wait_for_card() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Waits:
    """Counts the places at which Python waits for the card in a step."""

    def start(self) -> None:
        self.catching = warnings.catch_warnings(record=True)
        self.caught = self.catching.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def stop(self, steps: int) -> dict[str, float]:
        """Return place -> waits a step, the most frequent first."""
        torch.cuda.set_sync_debug_mode("default")
        found = [each for each in self.caught or [] if "synchroniz" in str(each.message)]
        self.catching.__exit__(None, None, None)
        places = Counter("/".join(Path(each.filename).parts[-2:]) + f":{each.lineno}" for each in found)
        return {place: round(count / steps, 2) for place, count in places.most_common(20)}


class _Utilisation:
    """Samples NVML's utilisation: the share of time in which a kernel runs, by the driver's own count."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.over = threading.Event()
        self.started = False

    def start(self) -> None:
        if self.started:
            return
        self.started = True
        try:
            import pynvml
        except ImportError:
            return
        if not torch.cuda.is_available():
            return
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)

        def sample() -> None:
            while not self.over.wait(0.25):
                self.samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

        threading.Thread(target=sample, daemon=True).start()

    def stop(self) -> None:
        self.over.set()

    def mean(self) -> float | None:
        """Return the mean share, None without samples."""
        return statistics.mean(self.samples) / 100 if self.samples else None
