"""Run a vision-language model through vLLM in this process, on one or several GPUs.

How it works: prompts are rendered with the model's own processor, as the transformers backend renders them.
vLLM batches by itself, so requests are handed over in large chunks. `tensor_parallel` splits one model over
GPUs, `data_parallel` runs several engines in processes of their own. The first rows of a run are asked of the
base too, and the record says whether the adapter changes them; engines in other processes are not asked.

Guarantees:
- An adapter with layers that vLLM ignores without a message (vision tower; before 0.32 Gated DeltaNet projections,
  too) is refused with "merge first".
- Base and adapter are compared by shapes before the engine starts."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from packaging.version import InvalidVersion, Version
from pydantic import Field

from dfkdata.common import config
from dfkdata.common.errors import ConfigError, DataError, missing_package
from dfkeval.backends._adapter_probe import ROWS, ProbedRow, verdict
from dfkeval.backends._contract import Backend, Capabilities
from dfkeval.backends._local.prompts import (
    RenderedPrompt,
    decoded_sha256,
    draw_key,
    failed,
    fitted_size,
    is_late,
    late,
    measured,
    open_images,
    opens_think,
    render,
    resized_sha256,
)
from dfkeval.backends._local.vllm_engine import EngineSettings, PromptJob, VLLMEngine, Workers
from dfkeval.models import adapters, loader
from dfkeval.models.identity import AnswerIdentity
from dfkeval.models.source import model_source
from dfkeval.parsing.tags import TURN_ENDS
from dfkeval.types import Completion, Constraint, Request, Sampling

CAPABILITIES = Capabilities(constrained=True, cacheable=True, scales_images=True)
#: Arguments of `vllm.LLM` that are no `engine_args`, and what sets them.
SET_HERE = {
    "model": "backend.model", "dtype": "backend.dtype", "tensor_parallel_size": "backend.tensor_parallel",
    "data_parallel_size": "backend.data_parallel", "max_model_len": "backend.max_model_len",
    "gpu_memory_utilization": "backend.memory", "limit_mm_per_prompt": "backend.images",
    "seed": "sampling.seed", "enable_lora": "backend.adapter", "max_lora_rank": "backend.adapter",
    "mm_processor_kwargs": "backend.max_pixels",
}  # fmt: skip


#: Largest ranks that vLLM can be started with.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
#: The first version that was measured to serve adapters of Gated DeltaNet projections as the local model does.
GATED_SINCE = "0.32"


class Config(config.Config):
    """What users write under `backend:`.

    Args:
        model: A model folder or a Hub name.
        adapter: Folder of a LoRA adapter.
        dtype: Type of the weights.
        max_pixels: Largest image area in pixels; None takes the adapter's `dfk.json`, else the processor's
            own.
        tensor_parallel: GPUs of one engine.
        data_parallel: Number of engines.
        max_model_len: Tokens of prompt and answer at most.
        memory: Share of each GPU's memory that an engine takes.
        images: Pictures of one prompt at most.
        chunk: Requests handed over at once.
        engine_args: Further arguments of `vllm.LLM`, such as {enforce_eager: true}.
    """

    kind: Literal["vllm"] = "vllm"
    model: str
    adapter: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "bfloat16"
    max_pixels: int | None = Field(default=None, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    data_parallel: int = Field(default=1, ge=1)
    max_model_len: int = Field(default=16_384, ge=1)
    memory: float = Field(default=0.9, gt=0.0, le=1.0)
    images: int = Field(default=8, ge=1)
    chunk: int = Field(default=512, ge=1)
    engine_args: dict[str, Any] = Field(default_factory=dict)


def check(config: Config, sampling: Sampling, constraint: Constraint | None) -> None:
    """Raise `ConfigError` if vllm is not installed, if an engine argument is one that dfk sets, or if vllm
    ignores layers of the adapter."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_package('backend "vllm"', "vllm", "vllm")
    taken = sorted(config.engine_args.keys() & SET_HERE.keys())
    if taken:
        raise ConfigError(
            f"backend.engine_args: {taken[0]} is set by {SET_HERE[taken[0]]}; leave it out there"
        )
    if config.adapter is not None:
        adapters.check_served(config.adapter, gated=True)


def start(config: Config) -> Backend:
    """Start the engines. Raises `ConfigError` if model and adapter do not belong together, `BackendError` if
    an engine cannot start."""
    check(config, Sampling(), None)
    if config.adapter is not None:
        version = str(importlib.import_module("vllm").__version__)
        adapters.check_served(config.adapter, gated=_at_least(version, GATED_SINCE))
    outline = loader.outline(config.model, adapter=config.adapter, max_pixels=config.max_pixels)
    settings = EngineSettings(
        model=model_source(config.model),
        dtype=config.dtype,
        tensor_parallel=config.tensor_parallel,
        max_model_len=config.max_model_len,
        memory=config.memory,
        images=config.images,
        adapter="" if config.adapter is None else str(config.adapter),
        rank=0 if config.adapter is None else _started_rank(config.adapter),
        ends=tuple({str(outline.processor.tokenizer.eos_token), *TURN_ENDS}),
        engine_args=config.engine_args,
    )
    return VLLM(config, settings, outline)


class VLLM:
    """A backend around one engine, or around workers that hold one each."""

    capabilities = CAPABILITIES

    def __init__(self, config: Config, settings: EngineSettings, outline: loader.Loaded) -> None:
        self.config, self.processor = config, outline.processor
        version = importlib.import_module("vllm").__version__
        self.info: dict[str, Any] = {
            "kind": "vllm", **outline.info, "dtype": config.dtype, "vllm": str(version),
            "device": importlib.import_module("vllm.platforms").current_platform.device_type,
            "tensor_parallel": config.tensor_parallel, "data_parallel": config.data_parallel,
            "attention": "chosen by vllm", "kernels": {"all": "vllm"},
            "engine_args": config.engine_args or None,
        }  # fmt: skip
        if config.adapter is not None:
            self.info["adapter_effect"] = (
                "not proved: no row was asked, or the engines are in other processes"
            )
        self.identity = AnswerIdentity.of(self.info)
        self.probed: list[ProbedRow] = []
        self.engine: VLLMEngine | None = None
        self.workers: Workers | None = None
        if config.data_parallel == 1:
            self.engine = VLLMEngine(settings)
        else:
            self.workers = Workers(settings, devices(config.data_parallel, config.tensor_parallel))

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield one completion for each request, chunk by chunk."""
        prompts, failures = measured(self.processor, requests, sampling)
        yield from failures
        jobs: list[PromptJob] = []
        for prompt in prompts:
            job = self._job(prompt, sampling)
            if isinstance(job, Completion):
                yield job
            else:
                jobs.append(job)
        if self.workers is not None:
            yield from self.workers.answer(_spread(jobs, self.config), sampling)
        elif self.engine is not None:
            self._probe_adapter(self.engine, jobs)
            asked = {prompt.request.id: prompt.request for prompt in prompts}
            for at in range(0, len(jobs), self.config.chunk):
                chunk = jobs[at : at + self.config.chunk]
                yield from (late(asked[job.id]) for job in chunk if is_late(asked[job.id]))
                due = [job for job in chunk if not is_late(asked[job.id])]
                yield from self.engine.answer(due, sampling) if due else ()

    def _probe_adapter(self, engine: VLLMEngine, jobs: Sequence[PromptJob]) -> None:
        """Record whether the adapter changes the first rows."""
        if self.config.adapter is not None and not self.probed and jobs:
            self.probed = engine.probe(jobs[:ROWS])
            self.info["adapter_effect"] = verdict(self.probed, "the base")

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """Return what the model is shown for a request: text and hashes of images. Raises `DataError` if an
        image cannot be read."""
        text = render(self.processor, request, sampling)
        images = open_images(request)
        return {"prompt": text, "images": resized_sha256(self.processor, images)}

    def close(self) -> None:
        """End the engines."""
        self.engine = None
        if self.workers is not None:
            self.workers.close()

    def _job(self, prompt: RenderedPrompt, sampling: Sampling) -> PromptJob | Completion:
        """Return the prompt with its pictures' sizes, or a failed request."""
        request = prompt.request
        if prompt.tokens + sampling.limit > self.config.max_model_len:
            reason = f"{prompt.tokens} prompt tokens and {sampling.limit} to come are above max_model_len"
            return failed(request, f"{reason} {self.config.max_model_len}")
        try:
            images = open_images(request)
        except DataError as error:
            return failed(request, str(error))
        sizes = [fitted_size(self.processor, image) for image in images]
        return PromptJob(
            id=request.id,
            text=prompt.text,
            seed=_seed(prompt, decoded_sha256(images), sampling),
            images=tuple(zip(request.images, sizes, strict=True)),
            constraint=request.constraint,
            thinks=opens_think(prompt.text),
            max_image_side=request.max_image_side,
        )


def _started_rank(adapter: Path) -> int:
    """Return the smallest rank that vLLM takes and that holds the adapter. Raises `ConfigError` if none does."""
    needed = adapters.rank(adapter)
    held = next((rank for rank in RANKS if rank >= needed), None)
    if held is None:
        raise ConfigError(
            f"adapter {adapter}: its rank {needed} is above vllm's largest, {RANKS[-1]}; merge first (dfktrain merge)"
        )
    return held


def _at_least(version: str, other: str) -> bool:
    """Return whether a version is as late as another; one that cannot be read is not."""
    try:
        return Version(version) >= Version(other)
    except InvalidVersion:
        return False


def _seed(prompt: RenderedPrompt, images: str, sampling: Sampling) -> int:
    """Return 31 bits that depend on the seed, the number of the draw, and the question."""
    key = draw_key(prompt, images, sampling)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1


def _spread(jobs: Sequence[PromptJob], config: Config) -> list[list[PromptJob]]:
    """Return chunks that keep every worker busy to the end: at least four for each if there are enough
    prompts."""
    size = max(1, min(config.chunk, -(-len(jobs) // (4 * config.data_parallel))))
    return [list(jobs[at : at + size]) for at in range(0, len(jobs), size)]


def devices(engines: int, per_engine: int) -> list[str]:
    """Return CUDA_VISIBLE_DEVICES of each engine. Raises `ConfigError` if too few GPUs are visible."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in shown.split(",") if name.strip()] if shown is not None else None
    if names is None:
        names = [str(at) for at in range(engines * per_engine)]
    if len(names) < engines * per_engine:
        raise ConfigError(
            f"data_parallel {engines} times tensor_parallel {per_engine} needs {engines * per_engine} GPUs, "
            f"and CUDA_VISIBLE_DEVICES shows {len(names)}"
        )
    return [",".join(names[at * per_engine : (at + 1) * per_engine]) for at in range(engines)]
