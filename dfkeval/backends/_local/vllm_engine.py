"""One vLLM engine in this process, and workers that hold one each.

Strategy: prompts arrive rendered and their pictures fitted to the pixel budget, so nothing depends on how a
version of vLLM renders or resizes. Reasoning is a request of its own that ends at the block's closer or at
its budget; the answer is a second one that continues it, so that budgets and constraints work alike in every
version. Promises: vllm is imported only here; a draw depends on its own seed; a worker that dies is an error
that names it. Source of the names used: vLLM's documentation of `LLM`, `SamplingParams`,
`StructuredOutputsParams` and `LoRARequest`."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dfkdata.common.errors import BackendError
from dfkdata.media.images import open_image
from dfkeval.parsing import reasoning
from dfkeval.parsing.tags import THINK_CLOSE
from dfkeval.types import Completion, Constraint, Sampling


@dataclass(frozen=True)
class Settings:
    """What an engine is started with. ends: texts of the tokens that end a turn. adapter: folder, "" for
    none. rank: its LoRA rank."""

    model: str
    dtype: str
    tensor_parallel: int
    max_model_len: int
    memory: float
    images: int
    adapter: str = ""
    rank: int = 0
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One rendered prompt. images: path and fitted size of each picture. seed: of its draws. thinks: the
    prompt ends inside a think block."""

    id: str
    text: str
    seed: int
    images: tuple[tuple[str, tuple[int, int]], ...] = ()
    constraint: Constraint | None = None
    thinks: bool = False


@dataclass
class _Said:
    """What the engine made of one prompt so far."""

    text: str = ""
    finish: str = "stop"
    prompt: int = 0
    tokens: int = 0
    first: float | None = None
    stop: Any = None


@dataclass
class _Thought:
    """The reasoning of one prompt. split: what was said, as a thought. cut: closed for the model."""

    said: _Said
    split: reasoning.SplitText
    cut: bool


class Engine:
    """A loaded `vllm.LLM`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.vllm = importlib.import_module("vllm")
        self.params = importlib.import_module("vllm.sampling_params")
        lora = {"enable_lora": True, "max_lora_rank": settings.rank} if settings.adapter else {}
        try:
            self.llm = self.vllm.LLM(
                model=settings.model,
                dtype=settings.dtype,
                tensor_parallel_size=settings.tensor_parallel,
                max_model_len=settings.max_model_len,
                gpu_memory_utilization=settings.memory,
                limit_mm_per_prompt={"image": settings.images},
                seed=0,
                **lora,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise BackendError(f"vllm cannot start {settings.model!r}: {error}") from error
        self.lora = None
        if settings.adapter:
            request = importlib.import_module("vllm.lora.request")
            self.lora = request.LoRARequest("adapter", 1, settings.adapter)

    def answer(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]:
        """One completion for each job, in order."""
        started = time.monotonic()
        thoughts = self._thoughts([job for job in jobs if job.thinks], sampling)
        going = [job for job in jobs if job.id not in thoughts or thoughts[job.id].split.closed]
        answers = self._answers(going, thoughts, sampling)
        said = {job.id: answer for job, answer in zip(going, answers, strict=True)}
        seconds = time.monotonic() - started
        return [_completion(job, said.get(job.id), thoughts.get(job.id), seconds) for job in jobs]

    def _thoughts(self, jobs: Sequence[Job], sampling: Sampling) -> dict[str, _Thought]:
        """The reasoning of each job by its id."""
        limit = sampling.thinking_budget or sampling.max_new_tokens
        wanted = [self._wanted(job, sampling, limit, stop=(THINK_CLOSE,), answers=False) for job in jobs]
        found = {}
        for job, said in zip(jobs, self._run([(job, job.text) for job in jobs], wanted), strict=True):
            cut = sampling.thinking_budget is not None and said.finish == "length"
            text = said.text + ("\n" + THINK_CLOSE if cut else "")
            found[job.id] = _Thought(said, reasoning.split_opened(text), cut)
        return found

    def _answers(self, jobs: Sequence[Job], thoughts: dict[str, _Thought], sampling: Sampling) -> list[_Said]:
        asked, wanted = [], []
        for job in jobs:
            text, limit = job.text, sampling.max_new_tokens
            if job.id in thoughts:
                thought = thoughts[job.id]
                text += f"{thought.split.reasoning}{THINK_CLOSE}{reasoning.GAP}"
                shared = sampling.thinking_budget is None
                limit = max(1, limit - thought.said.tokens) if shared else limit
            asked.append((job, text))
            wanted.append(self._wanted(job, sampling, limit, stop=sampling.stop, answers=True))
        return self._run(asked, wanted)

    def _wanted(
        self, job: Job, sampling: Sampling, limit: int, *, stop: tuple[str, ...], answers: bool
    ) -> Any:
        structured = self._structured(job.constraint) if answers and job.constraint is not None else None
        return self.vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=job.seed,
            max_tokens=limit,
            stop=list(stop),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            structured_outputs=structured,
        )

    def _structured(self, constraint: Constraint) -> Any:
        kind, text = constraint.kind, constraint.text
        given: dict[str, Any] = {"json_object": True} if kind == "json_object" else {_PARAMETER[kind]: text}
        return self.params.StructuredOutputsParams(**given)

    def _run(self, asked: Sequence[tuple[Job, str]], wanted: Sequence[Any]) -> list[_Said]:
        if not asked:
            return []
        prompts = [_prompt(job, text) for job, text in asked]
        outputs = self.llm.generate(prompts, list(wanted), use_tqdm=False, lora_request=self.lora)
        return [_said(output, self.settings.ends) for output in outputs]


_PARAMETER = {"structural_tag": "structural_tag", "grammar": "grammar", "json_schema": "json"}


def _prompt(job: Job, text: str) -> dict[str, Any]:
    """The prompt as vLLM takes it; pictures at their fitted size, which no processor changes again."""
    from PIL import Image

    if not job.images:
        return {"prompt": text}
    pictures = [open_image(path).resize(size, Image.Resampling.BICUBIC) for path, size in job.images]
    return {"prompt": text, "multi_modal_data": {"image": pictures}}


def _said(output: Any, ends: Sequence[str]) -> _Said:
    """One output without the text of the token that ended the turn."""
    made = output.outputs[0]
    text = made.text
    if made.finish_reason == "stop" and made.stop_reason is None:
        text = next((text.removesuffix(end) for end in ends if text.endswith(end)), text)
    latency = getattr(output.metrics, "first_token_latency", None)
    return _Said(
        text=text,
        finish="length" if made.finish_reason == "length" else "stop",
        prompt=len(output.prompt_token_ids or ()),
        tokens=len(made.token_ids),
        first=float(latency) if latency else None,
        stop=made.stop_reason,
    )


def _completion(job: Job, said: _Said | None, thought: _Thought | None, seconds: float) -> Completion:
    """said: None where the think block was never closed. thought: None for an answer without reasoning."""
    parts = [each for each in (thought.said if thought else None, said) if each is not None]
    return Completion(
        id=job.id,
        text="" if said is None else said.text,
        finish_reason="length" if parts[-1].finish == "length" else "stop",
        n_prompt_tokens=parts[0].prompt,
        n_output_tokens=sum(each.tokens for each in parts),
        seconds=seconds,
        first_token_seconds=parts[0].first,
        reasoning=None if thought is None else thought.split.reasoning,
        unclosed_think=said is None,
        thinking_cut=thought is not None and thought.cut,
    )


# --- workers ---------------------------------------------------------------------------------------------


@dataclass
class Workers:
    """`count` processes with an engine each, on their own GPUs; jobs go to whoever is free."""

    settings: Settings
    devices: Sequence[str]
    processes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.inbox, self.outbox = context.Queue(), context.Queue()
        for devices in self.devices:
            process = context.Process(
                target=_work, args=(self.settings, devices, self.inbox, self.outbox), daemon=False
            )
            process.start()
            self.processes.append(process)

    def answer(self, chunks: Sequence[Sequence[Job]], sampling: Sampling) -> Iterator[Completion]:
        """The completions of all chunks, as they come. Raises `BackendError` when a worker fails or dies."""
        for chunk in chunks:
            self.inbox.put((list(chunk), sampling))
        for _ in chunks:
            found = self._next()
            if isinstance(found, str):
                raise BackendError(found)
            yield from msgspec.json.decode(found, type=list[Completion])

    def _next(self) -> Any:
        while True:
            try:
                return self.outbox.get(timeout=1.0)
            except queue.Empty:
                dead = [at for at, each in enumerate(self.processes) if each.exitcode is not None]
                if dead:
                    code = self.processes[dead[0]].exitcode
                    raise BackendError(
                        f"the vllm worker on GPU {self.devices[dead[0]]} died (exit code {code}); "
                        "run the same command again to go on"
                    ) from None

    def close(self) -> None:
        """Let every worker end, and end those that do not."""
        for _ in self.processes:
            self.inbox.put(None)
        for process in self.processes:
            process.join(timeout=10)
            if process.exitcode is None:
                process.terminate()
                process.join()


def _work(settings: Settings, devices: str, inbox: Any, outbox: Any) -> None:
    """A worker: one engine on `devices`, until it is told to end."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
    try:
        engine = Engine(settings)
        while (job := inbox.get()) is not None:
            jobs, sampling = job
            outbox.put(msgspec.json.encode(engine.answer(jobs, sampling)))
    except (BackendError, RuntimeError, ValueError) as error:
        outbox.put(f"the vllm worker on GPU {devices}: {error}")
