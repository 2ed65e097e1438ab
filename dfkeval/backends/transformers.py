"""A Qwen vision-language model through transformers, on a GPU or a CPU.

Strategy: prompts are rendered and measured first, sorted by length and cut into batches under a token
budget, so that little is padded; the next batch is prepared (images decoded and resized) while the model
works on this one; a batch that does not fit into memory is halved and goes on. Promises: left padding with
`mm_token_type_ids`, so an answer does not depend on its neighbours (bit-equal texts in fp32); nothing of
the model's own generation defaults leaks in; the text is kept verbatim up to and with its stop string."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dfkdata import config
from dfkdata.errors import DataError
from dfkeval import loading
from dfkeval.backends._labels import with_label_probs
from dfkeval.samples import Backend, Completion, Request, Sampling


class Config(config.Config):
    """model: folder, hub name or "tiny". adapter: folder of a LoRA adapter. max_pixels: largest image area;
    None takes the adapter's `dfk.json`, else the processor's own. batch_tokens: prompt and answer tokens of
    one batch, padding included. batch_size: rows of one batch at most."""

    kind: Literal["transformers"] = "transformers"
    model: str
    adapter: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    max_pixels: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=32_768, ge=1)
    batch_size: int = Field(default=64, ge=1)


def start(config: Config) -> Backend:
    """Load the model. Raises `ConfigError` for what does not fit together, `BackendError` for what cannot
    be loaded."""
    loaded = loading.load(
        config.model,
        adapter=config.adapter,
        dtype=config.dtype,
        device=config.device,
        max_pixels=config.max_pixels,
    )
    return Transformers(loaded, batch_tokens=config.batch_tokens, batch_size=config.batch_size)


@dataclass(frozen=True)
class _Prompt:
    request: Request
    text: str
    tokens: int


class Transformers:
    """A backend around a loaded model; training evaluates its live model through this class."""

    def __init__(self, loaded: loading.Loaded, *, batch_tokens: int = 32_768, batch_size: int = 64) -> None:
        self.model, self.processor = loaded.model, loaded.processor
        self.batch_tokens, self.batch_size = batch_tokens, batch_size
        self.info: dict[str, Any] = {"kind": "transformers", **loaded.info}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """One completion for each request, longest prompts first."""
        prompts, failed = self._prompts(requests, sampling)
        yield from failed
        batches = list(self._batches(prompts, sampling.max_new_tokens))
        with ThreadPoolExecutor(max_workers=1) as ahead:
            prepared = ahead.submit(self._prepare, batches[0]) if batches else None
            for following in [*batches[1:], None]:
                if prepared is None:
                    return
                batch, broken, inputs = prepared.result()
                prepared = ahead.submit(self._prepare, following) if following is not None else None
                yield from broken
                if batch:
                    yield from self._answer(batch, inputs, sampling)

    def close(self) -> None:
        """Drop the model."""
        self.model = None

    def _prompts(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> tuple[list[_Prompt], list[Completion]]:
        """Rendered and measured prompts, longest first, and the requests whose images cannot be read."""
        prompts: list[_Prompt] = []
        failed: list[Completion] = []
        for request in requests:
            text = self.processor.apply_chat_template(
                request.messages, tools=request.tools, tokenize=False, add_generation_prompt=True,
                enable_thinking=sampling.thinking,
            )  # fmt: skip
            try:
                self._check_places(request, text)
                tokens = len(self.processor.tokenizer(text)["input_ids"]) + self._image_tokens(request)
            except DataError as error:
                failed.append(_failed(request, str(error)))
                continue
            prompts.append(_Prompt(request, text, tokens))
        return sorted(prompts, key=lambda prompt: -prompt.tokens), failed

    def _check_places(self, request: Request, text: str) -> None:
        """Raises `DataError` when the rendered turns have not one place for each image; the processor would
        give a neighbour's image to this row."""
        places, images = text.count(self.processor.image_token), len(request.images)
        if places != images:
            raise DataError(f"the turns have {places} places for images, and the row has {images} images")

    def _image_tokens(self, request: Request) -> int:
        """Upper bound of the tokens of the request's images, from their sizes alone."""
        images = self.processor.image_processor
        side = images.patch_size * images.merge_size
        total = 0
        for path in request.images:
            width, height = loading.image_size(path)
            area = min(max(width * height, images.size["shortest_edge"]), images.size["longest_edge"])
            total += area // (side * side) + 1
        return total

    def _batches(self, prompts: Sequence[_Prompt], new_tokens: int) -> Iterator[list[_Prompt]]:
        """Consecutive prompts whose padded size stays under the budget; a prompt above it comes alone."""
        batch: list[_Prompt] = []
        for prompt in prompts:
            width = (batch[0] if batch else prompt).tokens + new_tokens
            if batch and (len(batch) >= self.batch_size or width * (len(batch) + 1) > self.batch_tokens):
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _prepare(self, batch: Sequence[_Prompt]) -> tuple[list[_Prompt], list[Completion], Any]:
        """The prompts whose images can be decoded, the failed requests of the others, and the tensors of the
        former."""
        kept: list[_Prompt] = []
        images: list[list[Any]] = []
        failed: list[Completion] = []
        for prompt in batch:
            try:
                images.append([loading.open_image(path) for path in prompt.request.images])
                kept.append(prompt)
            except DataError as error:
                failed.append(_failed(prompt.request, str(error)))
        return kept, failed, self._inputs(kept, images) if kept else None

    def _inputs(self, batch: Sequence[_Prompt], images: Sequence[list[Any]]) -> Any:
        """Left-padded tensors of a batch, on the CPU."""
        return self.processor(
            text=[prompt.text for prompt in batch],
            images=[row for row in images if row] or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )

    def _answer(self, batch: list[_Prompt], inputs: Any, sampling: Sampling) -> Iterator[Completion]:
        import torch

        started = time.monotonic()
        try:
            made = self._run(inputs, sampling)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                prompt = batch[0]
                why = f"out of memory for one prompt of {prompt.tokens} tokens: {error}"
                yield _failed(prompt.request, why)
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                kept, broken, smaller = self._prepare(half)
                yield from broken
                if kept:
                    yield from self._answer(kept, smaller, sampling)
            return
        seconds = time.monotonic() - started
        counts = inputs["attention_mask"].sum(dim=1).tolist()
        found = [
            self._completion(prompt.request.id, ids, int(count), sampling, seconds)
            for prompt, ids, count in zip(batch, made, counts, strict=True)
        ]
        asked = [(prompt.request, prompt.text) for prompt in batch]
        yield from with_label_probs(found, asked, self.model, self.processor, self.batch_tokens)

    def _run(self, inputs: Any, sampling: Sampling) -> list[list[int]]:
        """New token ids of each row, padding included."""
        import torch
        from transformers import GenerationConfig

        tokenizer = self.processor.tokenizer
        drawn: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed)
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p,
                     "top_k": sampling.top_k, "min_p": sampling.min_p or None}  # fmt: skip
        settings = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=self._stop_ids(sampling),
            pad_token_id=tokenizer.pad_token_id
            if tokenizer.pad_token_id is not None
            else tokenizer.eos_token_id,
            use_cache=True,
            **drawn,
        )
        strings = [
            each for each in sampling.stop if len(tokenizer.encode(each, add_special_tokens=False)) > 1
        ]
        more = {"stop_strings": strings, "tokenizer": tokenizer} if strings else {}
        moved = {key: value.to(self.model.device) for key, value in inputs.items()}
        with torch.inference_mode(), self._no_defaults():
            made = self.model.generate(**moved, generation_config=settings, **more)
        new: list[list[int]] = made[:, inputs["input_ids"].shape[1] :].tolist()
        return new

    @contextmanager
    def _no_defaults(self) -> Iterator[None]:
        """The library fills settings that we leave out (suppressed tokens, n-gram bans, …) from the model's
        own; for the time of one call it has none. An adapter of
        PEFT may hold settings too."""
        from transformers import GenerationConfig

        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        holders = [net for net in {base, self.model} if "generation_config" in vars(net)]
        own = [net.generation_config for net in holders]
        for net in holders:
            net.generation_config = GenerationConfig()
        try:
            yield
        finally:
            for net, settings in zip(holders, own, strict=True):
                net.generation_config = settings

    def _stop_ids(self, sampling: Sampling) -> list[int]:
        """The end-of-turn tokens, and stop strings that are one token."""
        tokenizer = self.processor.tokenizer
        own = self.model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        single = [tokenizer.encode(each, add_special_tokens=False) for each in sampling.stop]
        return sorted(ends | {ids[0] for ids in single if len(ids) == 1})

    def _completion(
        self, name: str, ids: list[int], prompt: int, sampling: Sampling, seconds: float
    ) -> Completion:
        """The row's text up to its stop token (left out) or stop string (kept)."""
        tokenizer = self.processor.tokenizer
        stops = set(self._stop_ids(sampling))
        end = next((at for at, each in enumerate(ids) if each in stops), None)
        kept = _unpadded(ids, tokenizer.pad_token_id) if end is None else ids[: end + 1]
        text = tokenizer.decode(
            self._without_end(kept, sampling), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        cut = min((text.find(each) + len(each) for each in sampling.stop if each in text), default=None)
        finished = end is not None or cut is not None
        return Completion(
            id=name, text=text if cut is None else text[:cut], finish_reason="stop" if finished else "length",
            n_prompt_tokens=prompt, n_output_tokens=len(kept), seconds=seconds,
        )  # fmt: skip

    def _without_end(self, ids: list[int], sampling: Sampling) -> list[int]:
        """`ids` less a last end-of-turn token; the token of a stop string stays."""
        tokenizer = self.processor.tokenizer
        kept = {tokenizer.encode(each, add_special_tokens=False)[-1] for each in sampling.stop}
        return ids[:-1] if ids and ids[-1] in set(self._stop_ids(sampling)) - kept else ids


def _failed(request: Request, why: str) -> Completion:
    return Completion(id=request.id, text="", finish_reason="error", error=why)


def _unpadded(ids: list[int], pad: int | None) -> list[int]:
    """Less the padding that follows a stop string of several tokens."""
    end = len(ids)
    while end and ids[end - 1] == pad:
        end -= 1
    return ids[:end]
