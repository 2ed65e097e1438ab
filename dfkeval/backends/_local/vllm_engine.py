"""Run one vLLM engine in this process, or one in each of several workers.

How it works: prompts arrive rendered, and their pictures fitted to the pixel budget, so nothing depends on
how a version of vLLM renders or resizes. Reasoning is a request of its own that ends at the block's closing
tag or at its budget; the answer is a second request that continues it, so that budgets and constraints work
alike in every version. The names used are those of vLLM's documentation of `LLM`, `SamplingParams`,
`StructuredOutputsParams` and `LoRARequest`.

Guarantees:
- vllm is imported only here.
- A draw depends on its own seed.
- An engine that fails is a `BackendError`; a worker that dies is one that names it.
- What the engine gave up (`abort`, `error`) is asked again, and in the end a failed request."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.media.images import open_image
from dfkeval.backends._adapter_probe import TOKENS, Answered, ProbedRow
from dfkeval.backends._finish_reasons import finish_reason
from dfkeval.parsing import reasoning
from dfkeval.parsing.tags import THINK_CLOSE
from dfkeval.types import Completion, Constraint, FinishReason, Sampling

#: How often a prompt is asked whose answer the engine gives up.
ATTEMPTS = 3


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is started with.

    Args:
        model: Model folder or Hub name.
        dtype: Type of the weights.
        tensor_parallel: GPUs of the engine.
        max_model_len: Tokens of prompt and answer at most.
        memory: Share of each GPU's memory that the engine takes.
        images: Pictures of one prompt at most.
        adapter: Folder of a LoRA adapter; empty for none.
        rank: Its LoRA rank.
        ends: Texts of the tokens that end a turn.
        engine_args: Further arguments of `vllm.LLM`.
    """

    model: str
    dtype: str
    tensor_parallel: int
    max_model_len: int
    memory: float
    images: int
    adapter: str = ""
    rank: int = 0
    ends: tuple[str, ...] = ()
    engine_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptJob:
    """One rendered prompt, as it is sent to a worker.

    Args:
        id: Id of the request.
        text: The prompt.
        seed: Seed of its draws.
        images: Path and fitted size of each picture.
        constraint: What the answer must match.
        thinks: Whether the prompt ends inside a think block.
        max_image_side: As in the request.
    """

    id: str
    text: str
    seed: int
    images: tuple[tuple[str, tuple[int, int]], ...] = ()
    constraint: Constraint | None = None
    thinks: bool = False
    max_image_side: int | None = None


@dataclass
class _Output:
    """What the engine generated for one prompt."""

    text: str = ""
    finish: FinishReason | None = "stop"
    prompt: int = 0
    tokens: int = 0
    first: float | None = None
    stop: Any = None


@dataclass
class _Thought:
    """The reasoning of one prompt; `cut` says that the block was closed for the model."""

    output: _Output
    split: reasoning.SplitText
    cut: bool


class VLLMEngine:
    """A loaded `vllm.LLM`."""

    def __init__(self, settings: EngineSettings) -> None:
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
                **settings.engine_args,
            )
        except TypeError as error:
            raise ConfigError(f"backend.engine_args: vllm does not take them: {error}") from error
        except engine_errors() as error:
            raise BackendError(f"vllm cannot start {settings.model!r}: {error}") from error
        self.lora = None
        if settings.adapter:
            request = importlib.import_module("vllm.lora.request")
            self.lora = request.LoRARequest("adapter", 1, settings.adapter)

    def answer(self, jobs: Sequence[PromptJob], sampling: Sampling) -> list[Completion]:
        """Return one completion for each prompt, in order."""
        started = time.monotonic()
        thoughts = self._thoughts([job for job in jobs if job.thinks], sampling)
        going = [job for job in jobs if job.id not in thoughts or thoughts[job.id].split.closed]
        answers = self._answers(going, thoughts, sampling)
        by_id = {job.id: answer for job, answer in zip(going, answers, strict=True)}
        seconds = time.monotonic() - started
        return [_completion(job, by_id.get(job.id), thoughts.get(job.id), seconds) for job in jobs]

    def probe(self, jobs: Sequence[PromptJob]) -> list[ProbedRow]:
        """Return short greedy answers of the base, of the adapter, and of the base again."""
        prompts = [_prompt(job, job.text) for job in jobs]
        params = self.vllm.SamplingParams(
            temperature=0.0, max_tokens=TOKENS, logprobs=20, skip_special_tokens=False
        )
        base, adapted, again = (
            [_answered(made) for made in self._made(prompts, [params] * len(jobs), lora)]
            for lora in (None, self.lora, None)
        )
        return [ProbedRow(*row) for row in zip(base, adapted, again, strict=True)]

    def _thoughts(self, jobs: Sequence[PromptJob], sampling: Sampling) -> dict[str, _Thought]:
        """Return the reasoning of each prompt by its id."""
        limit = sampling.thinking_budget or sampling.max_new_tokens
        params = [
            self._sampling_params(job, sampling, limit, stop=(THINK_CLOSE,), answers=False) for job in jobs
        ]
        thoughts = {}
        outputs = self._run([(job, job.text) for job in jobs], params)
        for job, output in zip(jobs, outputs, strict=True):
            cut = sampling.thinking_budget is not None and output.finish == "length"
            text = output.text + ("\n" + THINK_CLOSE if cut else "")
            thoughts[job.id] = _Thought(output, reasoning.split_opened(text), cut)
        return thoughts

    def _answers(
        self, jobs: Sequence[PromptJob], thoughts: dict[str, _Thought], sampling: Sampling
    ) -> list[_Output]:
        prompts, params = [], []
        for job in jobs:
            text, limit = job.text, sampling.max_new_tokens
            if job.id in thoughts:
                thought = thoughts[job.id]
                text += f"{thought.split.reasoning}{THINK_CLOSE}{reasoning.GAP}"
                shared = sampling.thinking_budget is None
                limit = max(1, limit - thought.output.tokens) if shared else limit
            prompts.append((job, text))
            params.append(self._sampling_params(job, sampling, limit, stop=sampling.stop, answers=True))
        return self._run(prompts, params)

    def _sampling_params(
        self, job: PromptJob, sampling: Sampling, limit: int, *, stop: tuple[str, ...], answers: bool
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
        options: dict[str, Any] = {"json_object": True} if kind == "json_object" else {_PARAMETER[kind]: text}
        return self.params.StructuredOutputsParams(**options)

    def _run(self, jobs: Sequence[tuple[PromptJob, str]], params: Sequence[Any]) -> list[_Output]:
        if not jobs:
            return []
        outputs: list[_Output | None] = [None] * len(jobs)
        for _ in range(ATTEMPTS):
            left = [at for at, output in enumerate(outputs) if output is None or output.finish is None]
            if not left:
                break
            again = self._generate([_prompt(*jobs[at]) for at in left], [params[at] for at in left])
            for at, output in zip(left, again, strict=True):
                outputs[at] = output
        return [output for output in outputs if output is not None]

    def _generate(self, prompts: list[dict[str, Any]], params: list[Any]) -> list[_Output]:
        """Return one output for each prompt. Raises `BackendError` if the engine dies."""
        return [_output_of(output, self.settings.ends) for output in self._made(prompts, params, self.lora)]

    def _made(self, prompts: list[dict[str, Any]], params: list[Any], lora: Any) -> list[Any]:
        """Return what vLLM makes of each prompt. Raises `BackendError` if the engine dies."""
        try:
            made: list[Any] = self.llm.generate(prompts, params, use_tqdm=False, lora_request=lora)
        except engine_errors() as error:
            raise BackendError(
                f"the vllm engine failed ({type(error).__name__}: {error}); run the same command again to go on"
            ) from error
        return made


def _answered(made: Any) -> Answered:
    """Return an answer of vLLM with the log-probabilities of its first token's alternatives."""
    first = made.outputs[0]
    shown = (getattr(first, "logprobs", None) or [{}])[0]
    return Answered(first.text, {token: float(entry.logprob) for token, entry in shown.items()})


def engine_errors() -> tuple[type[Exception], ...]:
    """Return what vLLM raises when an engine fails; its own errors derive from none of Python's."""
    try:
        own = importlib.import_module("vllm.v1.engine.exceptions")
    except ModuleNotFoundError:
        return (RuntimeError, ValueError, OSError)
    named = vars(own).values()
    errors = [value for value in named if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, ValueError, OSError, *errors)


_PARAMETER = {"structural_tag": "structural_tag", "grammar": "grammar", "json_schema": "json"}


def _prompt(job: PromptJob, text: str) -> dict[str, Any]:
    """Return the prompt as vLLM takes it, with pictures at their fitted size, which no processor changes
    again."""
    from PIL import Image

    if not job.images:
        return {"prompt": text}
    pictures = [
        open_image(path, max_side=job.max_image_side).resize(size, Image.Resampling.BICUBIC)
        for path, size in job.images
    ]
    return {"prompt": text, "multi_modal_data": {"image": pictures}}


def _output_of(made: Any, ends: Sequence[str]) -> _Output:
    """Return an output without the text of the token that ended the turn."""
    first = made.outputs[0]
    text = first.text
    if first.finish_reason == "stop" and first.stop_reason is None:
        text = next((text.removesuffix(end) for end in ends if text.endswith(end)), text)
    latency = getattr(made.metrics, "first_token_latency", None)
    return _Output(
        text=text,
        finish=finish_reason(first.finish_reason),
        prompt=len(made.prompt_token_ids or ()),
        tokens=len(first.token_ids),
        first=float(latency) if latency else None,
        stop=first.stop_reason,
    )


def _completion(
    job: PromptJob, answer: _Output | None, thought: _Thought | None, seconds: float
) -> Completion:
    """Return the completion of reasoning and answer; `answer` is None if the think block was never closed."""
    parts = [part for part in (thought.output if thought else None, answer) if part is not None]
    ended = parts[-1].finish
    if ended is None:
        reason = f"vllm gave the answer up {ATTEMPTS} times"
        return Completion(id=job.id, text="", finish_reason="error", error=reason, seconds=seconds)
    return Completion(
        id=job.id,
        text="" if answer is None else answer.text,
        finish_reason=ended,
        n_prompt_tokens=parts[0].prompt,
        n_output_tokens=sum(part.tokens for part in parts),
        seconds=seconds,
        first_token_seconds=parts[0].first,
        reasoning=None if thought is None else thought.split.reasoning,
        unclosed_think=answer is None,
        thinking_cut=thought is not None and thought.cut,
    )


# --- workers ---------------------------------------------------------------------------------------------


@dataclass
class Workers:
    """Processes with an engine each, on their own GPUs; prompts go to whichever is free."""

    settings: EngineSettings
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

    def answer(self, chunks: Sequence[Sequence[PromptJob]], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of all chunks, as they come. Raises `BackendError` if a worker fails or
        dies."""
        for chunk in chunks:
            self.inbox.put((list(chunk), sampling))
        for _ in chunks:
            message = self._next()
            if isinstance(message, str):
                raise BackendError(message)
            yield from msgspec.json.decode(message, type=list[Completion])

    def _next(self) -> Any:
        while True:
            try:
                return self.outbox.get(timeout=1.0)
            except queue.Empty:
                dead = [at for at, process in enumerate(self.processes) if process.exitcode is not None]
                if dead:
                    code = self.processes[dead[0]].exitcode
                    raise BackendError(
                        f"the vllm worker on GPU {self.devices[dead[0]]} died (exit code {code}); "
                        "run the same command again to go on"
                    ) from None

    def close(self) -> None:
        """Ask every worker to end, and terminate those that do not."""
        for _ in self.processes:
            self.inbox.put(None)
        for process in self.processes:
            process.join(timeout=10)
            if process.exitcode is None:
                process.terminate()
                process.join()


def _work(settings: EngineSettings, devices: str, inbox: Any, outbox: Any) -> None:
    """Run a worker: one engine on its GPUs, until it is told to end."""
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
    failures: tuple[type[Exception], ...] = (BackendError, ConfigError, *engine_errors())
    try:
        engine = VLLMEngine(settings)
        while (message := inbox.get()) is not None:
            jobs, sampling = message
            outbox.put(msgspec.json.encode(engine.answer(jobs, sampling)))
    except failures as error:
        outbox.put(f"the vllm worker on GPU {devices}: {error}")
