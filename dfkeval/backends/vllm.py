"""A Qwen vision-language model through vLLM in this process, on one or several GPUs.

Strategy: prompts are rendered with the model's own processor, as `transformers` renders them; vLLM batches by
itself, so requests are handed over in large chunks. `tensor_parallel` splits one model over GPUs,
`data_parallel` runs several engines in processes of their own. Promises: an adapter with layers that vLLM
leaves out without a word (vision tower, Gated DeltaNet projections) is refused with "merge first"; base and
adapter are matched by shapes before the engine starts. That the adapter changes the answers is not proved
here, since vLLM gives no logits of both: the record says so."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dfkdata.common import config
from dfkdata.common.errors import ConfigError, DataError, missing_package
from dfkdata.media.images import open_image
from dfkeval.backends._contract import Backend, Capabilities
from dfkeval.backends._local.prompts import (
    Prompt,
    decoded_sha256,
    failed,
    fitted,
    measured,
    opens_think,
    render,
    resized_sha256,
)
from dfkeval.backends._local.vllm_engine import Engine, Job, Settings, Workers
from dfkeval.models import adapters, loader
from dfkeval.models.identity import AnswerIdentity
from dfkeval.models.source import model_source
from dfkeval.parsing.tags import TURN_ENDS
from dfkeval.types import Completion, Constraint, Request, Sampling

CAPABILITIES = Capabilities(constrained=True, cacheable=True)


class Config(config.Config):
    """model: folder or hub name. adapter: folder of a LoRA adapter. max_pixels: largest image area; None
    takes the adapter's `dfk.json`, else the processor's own. tensor_parallel: GPUs of one engine.
    data_parallel: engines. max_model_len: tokens of prompt and answer at most. memory: share of each GPU's
    memory that an engine takes. images: pictures of one prompt at most. chunk: requests handed over at
    once."""

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


def check(config: Config, sampling: Sampling, constraint: Constraint | None) -> None:
    """Raises `ConfigError` when vllm is not installed, or leaves out layers of the adapter."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_package('backend "vllm"', "vllm", "vllm")
    if config.adapter is not None:
        adapters.check_served(config.adapter)


def start(config: Config) -> Backend:
    """Start the engines. Raises `ConfigError` for what does not fit together, `BackendError` for what cannot
    be started."""
    check(config, Sampling(), None)
    found = loader.outline(config.model, adapter=config.adapter, max_pixels=config.max_pixels)
    settings = Settings(
        model=model_source(config.model),
        dtype=config.dtype,
        tensor_parallel=config.tensor_parallel,
        max_model_len=config.max_model_len,
        memory=config.memory,
        images=config.images,
        adapter="" if config.adapter is None else str(config.adapter),
        rank=0 if config.adapter is None else adapters.rank(config.adapter),
        ends=tuple({str(found.processor.tokenizer.eos_token), *TURN_ENDS}),
    )
    return VLLM(config, settings, found)


class VLLM:
    """A backend around one engine, or around workers. identity: what answers, for the response cache."""

    capabilities = CAPABILITIES

    def __init__(self, config: Config, settings: Settings, outline: loader.Loaded) -> None:
        self.config, self.processor = config, outline.processor
        version = importlib.import_module("vllm").__version__
        self.info: dict[str, Any] = {
            "kind": "vllm", **outline.info, "dtype": config.dtype, "vllm": str(version),
            "tensor_parallel": config.tensor_parallel, "data_parallel": config.data_parallel,
            "attention": "chosen by vllm", "kernels": {"all": "vllm"},
        }  # fmt: skip
        if config.adapter is not None:
            self.info["adapter_effect"] = "not proved: vllm gives no logits without the adapter"
        self.identity = AnswerIdentity.of(self.info)
        self.engine: Engine | None = None
        self.workers: Workers | None = None
        if config.data_parallel == 1:
            self.engine = Engine(settings)
        else:
            self.workers = Workers(settings, devices(config.data_parallel, config.tensor_parallel))

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """One completion for each request, in chunks."""
        prompts, broken = measured(self.processor, requests, sampling)
        yield from broken
        jobs: list[Job] = []
        for prompt in prompts:
            found = self._job(prompt, sampling)
            if isinstance(found, Completion):
                yield found
            else:
                jobs.append(found)
        if self.workers is not None:
            yield from self.workers.answer(_spread(jobs, self.config), sampling)
        elif self.engine is not None:
            for at in range(0, len(jobs), self.config.chunk):
                yield from self.engine.answer(jobs[at : at + self.config.chunk], sampling)

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """What the model is shown for `request`, in hashes. Raises `DataError` for an image that cannot be
        read."""
        text = render(self.processor, request, sampling)
        images = [open_image(path) for path in request.images]
        return {"prompt": text, "images": resized_sha256(self.processor, images)}

    def close(self) -> None:
        """End the engines."""
        self.engine = None
        if self.workers is not None:
            self.workers.close()

    def _job(self, prompt: Prompt, sampling: Sampling) -> Job | Completion:
        """The prompt with its pictures' sizes, or a failed request."""
        request = prompt.request
        if prompt.tokens + sampling.limit > self.config.max_model_len:
            why = f"{prompt.tokens} prompt tokens and {sampling.limit} to come are above max_model_len"
            return failed(request, f"{why} {self.config.max_model_len}")
        try:
            images = [open_image(path) for path in request.images]
        except DataError as error:
            return failed(request, str(error))
        sizes = [fitted(self.processor, image) for image in images]
        return Job(
            id=request.id,
            text=prompt.text,
            seed=_seed(prompt, decoded_sha256(images), sampling),
            images=tuple(zip(request.images, sizes, strict=True)),
            constraint=request.constraint,
            thinks=opens_think(prompt.text),
        )


def _seed(prompt: Prompt, images: str, sampling: Sampling) -> int:
    """31 bits that depend on the seed, the number of the draw, and the question."""
    key = f"{sampling.seed}\n{prompt.request.draw_index}\n{images}\n{prompt.text}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1


def _spread(jobs: Sequence[Job], config: Config) -> list[list[Job]]:
    """Chunks that keep every worker busy to the end: at least four a worker where there are enough jobs."""
    size = max(1, min(config.chunk, -(-len(jobs) // (4 * config.data_parallel))))
    return [list(jobs[at : at + size]) for at in range(0, len(jobs), size)]


def devices(engines: int, each: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each engine. Raises `ConfigError` when fewer are visible than asked for."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in shown.split(",") if name.strip()] if shown is not None else None
    if names is None:
        names = [str(at) for at in range(engines * each)]
    if len(names) < engines * each:
        raise ConfigError(
            f"data_parallel {engines} times tensor_parallel {each} needs {engines * each} GPUs, and "
            f"CUDA_VISIBLE_DEVICES shows {len(names)}"
        )
    return [",".join(names[at * each : (at + 1) * each]) for at in range(engines)]
