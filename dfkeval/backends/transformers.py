"""Run a vision-language model through transformers, on a GPU or a CPU.

How it works: prompts are rendered and measured first. Models of the Qwen3.5 family answer by continuous
batching (`_continuous`). For others, and for rows with videos, prompts are sorted by length and cut into
batches under a token budget, so that little is padded; the next batch is prepared (images decoded by several
workers, resized) while the model works on this one. A batch that does not fit into memory is halved, later
batches are made smaller, and the run goes on.

Guarantees:
- An answer does not depend on its neighbours (equal texts in fp32), drawn answers included, because batches
  are padded on the left with `mm_token_type_ids`.
- Nothing of the model's own generation defaults has an effect.
- The text is kept verbatim up to and with its stop string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dfkdata.common import config
from dfkdata.common.errors import ConfigError, DataError
from dfkeval.backends._continuous.engine import Engine
from dfkeval.backends._continuous.weights import compute_type, refusal
from dfkeval.backends._contract import Backend, Capabilities
from dfkeval.backends._local.generate import Batch, Generator
from dfkeval.backends._local.label_probabilities import with_label_probs
from dfkeval.backends._local.likelihood import likelihoods
from dfkeval.backends._local.prompts import (
    RenderedPrompt,
    decoded_sha256,
    draw_key,
    failed,
    measured,
    open_images,
    render,
    resized_sha256,
    video_sha256,
)
from dfkeval.backends._xgrammar import load_xgrammar
from dfkeval.models import loader, video
from dfkeval.models.identity import AnswerIdentity
from dfkeval.models.processor import load_processor
from dfkeval.parsing.reasoning import GAP
from dfkeval.parsing.tags import THINK_CLOSE
from dfkeval.types import Completion, Constraint, GoldAnswer, Likelihood, Request, Sampling

Batching = Literal["auto", "continuous", "static"]
CAPABILITIES = Capabilities(
    constrained=True, likelihoods=True, cacheable=True, videos=True, scales_images=True, limits_requests=True
)


class Config(config.Config):
    """What users write under `backend:`.

    Args:
        model: A model folder, a Hub name, or "tiny".
        adapter: Folder of a LoRA adapter.
        dtype: Type of the weights; "auto" is bfloat16 on a GPU and float32 on a CPU.
        device: "auto", "cpu", "cuda", or a card such as "cuda:1".
        max_pixels: Largest image area in pixels; None takes the adapter's `dfk.json`, else the processor's
            own.
        batch_tokens: Prompt and answer tokens of one batch, padding included; with continuous batching, prompt
            tokens of one prefill.
        batch_size: Rows of one batch, or answers under way, at most.
        workers: Threads that decode images.
        batching: "continuous" lets a new row in as soon as another has ended, and computes a step for all of
            them at once; "static" asks `model.generate` batch by batch. "auto" is continuous for the models
            that it takes. Rows with videos are always asked batch by batch.
    """

    kind: Literal["transformers"] = "transformers"
    model: str
    adapter: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    max_pixels: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=32_768, ge=1)
    batch_size: int = Field(default=64, ge=1)
    workers: int = Field(default=4, ge=1)
    batching: Batching = "auto"


def check(config: Config, sampling: Sampling, constraint: Constraint | None) -> None:
    """Raise `ConfigError` if answers are to be constrained and xgrammar is not installed."""
    if constraint is not None:
        load_xgrammar()


def video_fault(config: Config) -> str | None:
    """Return why the model's processor does not read videos; None if it does."""
    return video.video_fault(load_processor(config.model))


def start(config: Config) -> Backend:
    """Load the model. Raises `ConfigError` if model and adapter do not belong together, `BackendError` if
    they cannot be loaded."""
    loaded = loader.load(
        config.model,
        adapter=config.adapter,
        dtype=config.dtype,
        device=config.device,
        max_pixels=config.max_pixels,
    )
    engine = Transformers(
        loaded, batch_tokens=config.batch_tokens, batch_size=config.batch_size, workers=config.workers,
        batching=config.batching,
    )  # fmt: skip
    engine.identity = AnswerIdentity.of(engine.info)
    return engine


class Transformers:
    """A backend around a loaded model; training evaluates its live model through this class.

    Attributes:
        identity: What decides an answer, for the response cache; None for a live model, whose answers are
            never cached.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        loaded: loader.Loaded,
        *,
        batch_tokens: int = 32_768,
        batch_size: int = 64,
        workers: int = 4,
        batching: Batching = "auto",
    ) -> None:
        self.model, self.processor = loaded.model, loaded.processor
        self.capabilities = replace(CAPABILITIES, videos=video.video_fault(self.processor) is None)
        self.batch_tokens, self.batch_size, self.workers = batch_tokens, batch_size, workers
        self.refusal = refusal(self.model) if batching != "static" else "it was asked for"
        if batching == "continuous" and self.refusal is not None:
            raise ConfigError(f"backend.batching: continuous batching: {self.refusal}; choose auto or static")
        way = "continuous" if self.refusal is None else "static"
        self.info: dict[str, Any] = {"kind": "transformers", **loaded.info, "batching": way}
        if batching == "auto" and self.refusal is not None:
            self.info["static_because"] = self.refusal
        self.engine: Engine | None = None
        self.identity: AnswerIdentity | None = None
        self.generator = Generator(self.model, self.processor)
        self.listen: Callable[[str], None] | None = None

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield one completion for each request, longest prompts first."""
        prompts, failures = measured(self.processor, requests, sampling, videos=True)
        self.generator.compile(prompts)
        yield from failures
        self.generator.listen = self.listen
        one_by_one = self.refusal is not None or self.listen is not None
        others = [each for each in prompts if each.request.videos or one_by_one]
        if not one_by_one:
            yield from self._continuous([each for each in prompts if not each.request.videos], sampling)
        yield from self._static(others, sampling)

    def _continuous(self, prompts: Sequence[RenderedPrompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of rows that come and leave one by one."""
        if self.engine is None:
            self.engine = Engine(
                self.model, self.generator, dtype=compute_type(self.model), workers=self.workers
            )
        known = {prompt.request.id: prompt for prompt in prompts}
        scored: list[Completion] = []
        for made in self.engine.answer(prompts, sampling, self.batch_size, self.batch_tokens):
            if known[made.id].request.slot is None:
                yield made
                continue
            scored.append(made)
            if len(scored) == self.batch_size:
                yield from self._with_label_probs(scored, known)
                scored = []
        yield from self._with_label_probs(scored, known)

    def _with_label_probs(
        self, completions: Sequence[Completion], prompts: Mapping[str, RenderedPrompt]
    ) -> Iterator[Completion]:
        asked = [(prompts[each.id].request, _answered_from(prompts[each.id], each)) for each in completions]
        return with_label_probs(completions, asked, self.model, self.processor, self.batch_tokens)

    def _static(self, prompts: Sequence[RenderedPrompt], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of `model.generate`, batch by batch."""
        batches = self._batches(prompts, sampling.limit)
        with ThreadPoolExecutor(max_workers=1) as ahead, ThreadPoolExecutor(self.workers) as decoders:
            coming = (ahead.submit(self._prepare, each, sampling, decoders) for each in batches)
            prepared = next(coming, None)
            while prepared is not None:
                batch, prepared = prepared.result(), next(coming, None)
                yield from self._answer(batch, sampling, decoders)

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """Return what the model is shown for a request: text and hashes of images. Raises `DataError` if an
        image cannot be read."""
        text = render(self.processor, request, sampling, videos=True)
        images = open_images(request)
        shown = {"prompt": text, "images": resized_sha256(self.processor, images)}
        return shown | ({"videos": video_sha256(self.processor, request.videos)} if request.videos else {})

    def likelihoods(self, gold_answers: Iterable[GoldAnswer], sampling: Sampling) -> Iterator[Likelihood]:
        """Yield how likely the model finds each gold answer."""
        yield from likelihoods(
            gold_answers, self.model, self.processor, sampling, self.batch_tokens, self.batch_size
        )

    def close(self) -> None:
        """Drop the model."""
        self.model = self.engine = None
        self.generator = Generator(None, self.processor)

    def _batches(self, prompts: Sequence[RenderedPrompt], new_tokens: int) -> Iterator[list[RenderedPrompt]]:
        """Yield consecutive prompts whose padded size stays under the budget, which may shrink meanwhile.

        A prompt above the budget comes alone."""
        batch: list[RenderedPrompt] = []
        for prompt in prompts:
            width = (batch[0] if batch else prompt).tokens + new_tokens
            if batch and (len(batch) >= self.batch_size or width * (len(batch) + 1) > self.batch_tokens):
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _prepare(self, prompts: Sequence[RenderedPrompt], sampling: Sampling, decoders: Executor) -> Batch:
        """Decode, resize and pad a batch; images are decoded by `decoders`, several at once."""
        readable: list[RenderedPrompt] = []
        images: list[list[Any]] = []
        failures: list[Completion] = []
        for prompt, decoded in zip(prompts, decoders.map(_images, prompts), strict=True):
            if isinstance(decoded, DataError):
                failures.append(failed(prompt.request, str(decoded), refused=True))
            else:
                readable.append(prompt)
                images.append(decoded)
        if not readable:
            return Batch(readable, failures)
        drawn = sampling.temperature > 0
        try:
            inputs = self._inputs(readable, images)
            draws = [self._draw(*pair, sampling) for pair in zip(readable, images, strict=True) if drawn]
        except DataError as error:  # a video that changed since it was measured
            refused = [failed(prompt.request, str(error), refused=True) for prompt in readable]
            return Batch([], [*failures, *refused])
        return Batch(readable, failures, inputs, tuple(draws))

    def _inputs(self, batch: Sequence[RenderedPrompt], images: Sequence[list[Any]]) -> Any:
        """Return left-padded tensors of a batch, on the CPU."""
        inputs = self.processor(
            text=[prompt.text for prompt in batch],
            images=[row for row in images if row] or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        videos = [path for prompt in batch for path in prompt.request.videos]
        return video.with_videos(inputs, videos, self.processor)

    def _draw(self, prompt: RenderedPrompt, images: Sequence[Any], sampling: Sampling) -> str:
        """Return what a row's draws depend on: seed, number of the draw, and the question; no neighbour and
        no id."""
        videos = prompt.request.videos
        shown = "".join(video_sha256(self.processor, videos)) if videos else ""
        return draw_key(prompt, f"{decoded_sha256(images)}{shown}", sampling)

    def _answer(self, batch: Batch, sampling: Sampling, decoders: Executor) -> Iterator[Completion]:
        yield from batch.failures
        if not batch.prompts:
            return
        made = self._attempt(batch, sampling)
        if isinstance(made, list):
            yield from self._with_label_probs(made, {each.request.id: each for each in batch.prompts})
            return
        if len(batch.prompts) == 1:
            prompt = batch.prompts[0]
            yield failed(prompt.request, f"out of memory for one prompt of {prompt.tokens} tokens: {made}")
            return
        middle = len(batch.prompts) // 2
        for half in (batch.prompts[:middle], batch.prompts[middle:]):
            yield from self._answer(self._prepare(half, sampling, decoders), sampling, decoders)

    def _attempt(self, batch: Batch, sampling: Sampling) -> list[Completion] | str:
        """Return the answers of a batch, or why it does not fit into memory; later batches are then made
        smaller.

        The error is caught here, so that nothing holds the memory of the failed attempt when this returns."""
        import torch

        try:
            return self.generator.run(batch, sampling)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        width = batch.prompts[0].tokens + sampling.limit
        self.batch_tokens = max(1, min(self.batch_tokens, width * len(batch.prompts) // 2))
        self.info["batch_tokens_after_out_of_memory"] = self.batch_tokens
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return reason


def _images(prompt: RenderedPrompt) -> list[Any] | DataError:
    """Return the decoded images of a prompt, or the error of one that cannot be read."""
    try:
        return open_images(prompt.request)
    except DataError as error:
        return error


def _answered_from(prompt: RenderedPrompt, completion: Completion) -> str:
    """Return the text before the answer: the prompt, and the reasoning."""
    if completion.reasoning is None or completion.unclosed_think:
        return prompt.text
    return f"{prompt.text}{completion.reasoning}{THINK_CLOSE}{GAP}"
