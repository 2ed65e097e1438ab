"""Generate answers for one batch with the model's `generate`.

Guarantees:
- Nothing of the model's own generation defaults has an effect.
- The largest logit is always taken; drawing, closing a think block and keeping to a grammar happen on the
  logits (`logits`, `grammar`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.backends._local.grammar import Compiler, Constrained
from dfkeval.backends._local.logits import AnswerListener, Deadlines, Draw, FirstToken, Thinking
from dfkeval.backends._local.prompts import RenderedPrompt, late, opens_think
from dfkeval.parsing import reasoning
from dfkeval.parsing.tags import THINK_CLOSE
from dfkeval.types import Completion, Constraint, Sampling


@dataclass
class Batch:
    """Prompts whose images could be decoded, with their tensors.

    Args:
        prompts: The prompts.
        failures: Failed requests of the other prompts.
        inputs: Left-padded tensors, on the CPU.
        draws: For each prompt, what its random draws depend on.
    """

    prompts: list[RenderedPrompt]
    failures: list[Completion]
    inputs: Any = None
    draws: tuple[str, ...] = ()


class Generator:
    """Generate with a model and its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self._compiler: Compiler | None = None
        self.listen: Callable[[str], None] | None = None

    def compile(self, prompts: Sequence[RenderedPrompt]) -> None:
        """Compile every constraint before anything is asked. Raises `ConfigError` for one that cannot be
        compiled."""
        constraints = {prompt.request.constraint for prompt in prompts} - {None}
        if constraints and self._compiler is None:
            vocab = self.model.config.get_text_config().vocab_size
            self._compiler = Compiler(self.processor.tokenizer, vocab, self._turn_ends())
        for constraint in constraints:
            if self._compiler is not None and constraint is not None:
                self._compiler.compiled(constraint)

    def run(self, batch: Batch, sampling: Sampling) -> list[Completion]:
        """Return the completions of one batch, in order."""
        import torch

        started = time.monotonic()
        clock, thinking = FirstToken(started), self._thinking(batch, sampling)
        processors = [clock, *([thinking] if thinking else []), *self._constrained(batch, sampling)]
        if sampling.temperature > 0:
            processors.append(Draw(sampling, batch.draws, self.model.device))
        deadlines = Deadlines(
            [prompt.request for prompt in batch.prompts], self.stop_ids(sampling), self._pad()
        )
        if any(prompt.request.deadline is not None for prompt in batch.prompts):
            processors.append(deadlines)
        if self.listen is not None and len(batch.prompts) == 1:
            processors.append(self._told(batch, sampling, self.listen))
        settings = self._settings(
            sampling, thinking
        )  # before the model's own are taken away, which name its ends
        moved = {key: value.to(self.model.device) for key, value in batch.inputs.items()}
        with torch.inference_mode(), self._no_defaults():
            made = self.model.generate(
                **moved,
                generation_config=settings,
                logits_processor=_listed(processors),
                **self._stop_strings(sampling),
            )
        new: list[list[int]] = made[:, batch.inputs["input_ids"].shape[1] :].tolist()
        seconds = time.monotonic() - started
        counts = batch.inputs["attention_mask"].sum(dim=1).tolist()
        cut = thinking.cut if thinking else [False] * len(new)
        return [
            late(prompt.request)
            if is_late
            else self.completion(
                prompt, prompt.request.id, ids, int(count), sampling, (seconds, clock.seconds), was_cut
            )
            for prompt, ids, count, was_cut, is_late in zip(
                batch.prompts, new, counts, cut, deadlines.late, strict=True
            )
        ]

    def _told(self, batch: Batch, sampling: Sampling, listen: Callable[[str], None]) -> AnswerListener:
        """Return what tells the text of the only row so far."""
        prompt, width = batch.prompts[0], batch.inputs["input_ids"].shape[1]

        def tell(ids: list[int]) -> None:
            listen(self.completion(prompt, prompt.request.id, ids, 0, sampling, (0.0, None)).text)

        return AnswerListener(width, tell)

    def _settings(self, sampling: Sampling, thinking: Thinking | None) -> Any:
        """Return settings that take the largest logit; drawing is done by our own processor."""
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=sampling.limit + (len(thinking.closer) if thinking else 0),
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=self.stop_ids(sampling),
            pad_token_id=self._pad(),
            use_cache=True,
            do_sample=False,
        )

    def _pad(self) -> int | None:
        tokenizer = self.processor.tokenizer
        pad: int | None = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        )
        return pad

    def _stop_strings(self, sampling: Sampling) -> dict[str, Any]:
        """Return the arguments for stop strings of several tokens."""
        tokenizer = self.processor.tokenizer
        strings = [
            stop for stop in sampling.stop if len(tokenizer.encode(stop, add_special_tokens=False)) > 1
        ]
        return {"stop_strings": strings, "tokenizer": tokenizer} if strings else {}

    def _thinking(self, batch: Batch, sampling: Sampling) -> Thinking | None:
        """Return the processor that keeps a budget of reasoning; None without one."""
        if sampling.thinking_budget is None:
            return None
        return Thinking(len(batch.prompts), sampling.thinking_budget, self.closer(), self.think_end())

    def _constrained(self, batch: Batch, sampling: Sampling) -> list[Constrained]:
        """Return the grammar of a batch that has one."""
        if self._compiler is None or all(prompt.request.constraint is None for prompt in batch.prompts):
            return []
        compiled = [
            None if prompt.request.constraint is None else self._compiler.compiled(prompt.request.constraint)
            for prompt in batch.prompts
        ]
        opens = opens_think(batch.prompts[0].text)
        return [
            Constrained(
                self._compiler,
                compiled,
                self.stop_ids(sampling),
                think_end=self.think_end() if opens else None,
                gap=self.gap(),
            )
        ]

    def matcher(self, constraint: Constraint | None) -> Any:
        """Return a fresh matcher of a constraint that `compile` has seen; None for a free answer."""
        if constraint is None or self._compiler is None:
            return None
        return self._compiler.matcher(constraint)

    def closer(self) -> list[int]:
        """Return the tokens that close a think block."""
        return self.token_ids("\n" + THINK_CLOSE + reasoning.GAP)

    def gap(self) -> list[int]:
        """Return the tokens between a closed think block and the answer."""
        return self.token_ids(reasoning.GAP)

    def think_end(self) -> int:
        """Return the id of the closing tag. Raises `ConfigError` if the tokenizer has no token for it."""
        ids = self.token_ids(THINK_CLOSE)
        if len(ids) != 1:
            raise ConfigError(
                f"thinking: {THINK_CLOSE} is not a single token of this model, so no budget can be kept"
            )
        return ids[0]

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ids: list[int] = self.processor.tokenizer.encode(text, add_special_tokens=False)
        return ids

    @contextmanager
    def _no_defaults(self) -> Iterator[None]:
        """Take the model's own generation settings away for one call.

        The library would fill what we leave out from them (suppressed tokens, n-gram bans); a PEFT adapter
        may hold settings too."""
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

    def stop_ids(self, sampling: Sampling) -> list[int]:
        """Return the end-of-turn tokens, and stop strings that are one token."""
        single = [self.token_ids(stop) for stop in sampling.stop]
        return sorted({*self._turn_ends(), *(ids[0] for ids in single if len(ids) == 1)})

    def _turn_ends(self) -> list[int]:
        """Return the tokens that end a turn."""
        own = self.model.generation_config.eos_token_id
        ends = {self.processor.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        return sorted(ends - {None})

    def completion(
        self,
        prompt: RenderedPrompt,
        request_id: str,
        ids: list[int],
        count: int,
        sampling: Sampling,
        seconds: tuple[float, float | None],
        cut: bool = False,
    ) -> Completion:
        """Return the row's text up to its stop token (left out) or stop string (kept), its reasoning apart.

        Args:
            prompt: The prompt.
            request_id: The request that is answered.
            ids: The tokens of the answer, and what may have been written behind its end.
            count: Tokens of the prompt.
            sampling: How text was drawn.
            seconds: Of the batch or the row, and until its first token.
            cut: Whether its think block was closed for the model.
        """
        tokenizer = self.processor.tokenizer
        stops = set(self.stop_ids(sampling))
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        answer = _unpadded(ids, tokenizer.pad_token_id) if end is None else ids[: end + 1]
        text = tokenizer.decode(
            self._without_end(answer, sampling), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        thought = reasoning.split_opened(text) if opens_think(prompt.text) else None
        text = text if thought is None else thought.answer
        stop = min((text.find(each) + len(each) for each in sampling.stop if each in text), default=None)
        return Completion(
            id=request_id,
            text=text if stop is None else text[:stop],
            finish_reason="length" if end is None and stop is None else "stop",
            n_prompt_tokens=count,
            n_output_tokens=len(answer),
            seconds=seconds[0],
            first_token_seconds=seconds[1],
            reasoning=None if thought is None else thought.reasoning,
            unclosed_think=thought is not None and not thought.closed,
            thinking_cut=cut and thought is not None and thought.closed,
        )

    def _without_end(self, ids: list[int], sampling: Sampling) -> list[int]:
        """Return the ids without a last end-of-turn token; the token of a stop string stays."""
        tokenizer = self.processor.tokenizer
        stop_ends = {tokenizer.encode(stop, add_special_tokens=False)[-1] for stop in sampling.stop}
        return ids[:-1] if ids and ids[-1] in set(self.stop_ids(sampling)) - stop_ends else ids


def _listed(processors: Sequence[Any]) -> Any:
    from transformers import LogitsProcessorList

    return LogitsProcessorList(processors)


def _unpadded(ids: list[int], pad: int | None) -> list[int]:
    """Return the ids without the padding that follows a stop string of several tokens."""
    end = len(ids)
    while end and ids[end - 1] == pad:
        end -= 1
    return ids[:end]
