"""The language model's layers in a training step: without a mask over padding, and replayed as CUDA graphs.

How it works: batches are padded on the right, where causal attention and the recurrence never look from an answer, so
no mask is needed and attention takes its fastest kernel. A step of a small model is thousands of short kernels, and
Python takes longer to launch them than a GPU to run them. Once a shape of batches comes a second time, its forward and
its backward pass through all layers are recorded, and from then on replayed by one call each. Batches of few widths
have few shapes.

Guarantees:
    - Values and gradients are those of the layers as they are. A recording is compared with them before it is used.
    - Packed rows, calls with a cache and evaluation run the layers as they are, and so does everything once a
      recording has failed."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from dfktrain.engines._adapter_products import ROUNDED
from dfktrain.engines._base import bare
from dfktrain.engines._compared import LIMIT, patched

WIDTHS = 64
"""Widths of padded batches are multiples of it where graphs are used."""
MOST = 48
"""Shapes that are recorded."""
TRAIN, TEACHER = "train", "teacher"
TWICE = (
    "recorded layers ran forward again before the backward pass, which would read what the second run left"
)
UNMASKED = {"full_attention": None, "linear_attention": None}
Run = Callable[[Tensor, Tensor | None], Tensor]
"""Takes embeddings (B, T, H) and positions, and returns the last hidden states (B, T, H)."""


def without_mask(stack: ExitStack, network: Any) -> str:
    """Leave the mask over padding out of training steps; return "on", or why it stays."""
    language = _language(network)
    if language is None:
        return "no such layer"
    plain = language.forward

    def forward(body: Any, *args: Any, attention_mask: Any = None, **inputs: Any) -> Any:
        cached = inputs.get("past_key_values") is not None or inputs.get("use_cache")
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2 and not cached and _mode(body):
            attention_mask = UNMASKED
        return plain(*args, attention_mask=attention_mask, **inputs)

    stack.enter_context(patched(language, MethodType(forward, language)))
    return "on"


@contextmanager
def recorded_layers(model: Any, enabled: bool, found: dict[str, str]) -> Iterator[None]:
    """Replay the layers of the language model from CUDA graphs within, if `enabled`.

    Args:
        model: The network with its adapter.
        enabled: Whether the configuration asks for it.
        found: Gets "CUDA graphs" -> "on", or the reason why layers run as they are.
    """
    if not enabled:
        yield
        return
    network = bare(model)
    language = _language(network)
    reason = _fault(language)
    found["CUDA graphs"] = reason or "on"
    if reason is not None:
        yield
        return
    plain = language.forward
    shapes = _Shapes(network, language, plain, found)

    def forward(
        body: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: Any = None,
        **rest: Any,
    ) -> Any:
        mode = _mode(body)
        other = past_key_values is not None or use_cache or any(each is not None for each in rest.values())
        passes = None
        if mode is not None and inputs_embeds is not None and not other:
            passes = shapes.passes(mode, inputs_embeds, position_ids)
        if passes is None:
            return plain(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache, **rest,
            )  # fmt: skip
        from transformers.modeling_outputs import BaseModelOutputWithPast

        return BaseModelOutputWithPast(last_hidden_state=passes(inputs_embeds, position_ids))

    with patched(language, MethodType(forward, language)):
        yield


def _language(network: Any) -> Any:
    return getattr(getattr(network, "model", None), "language_model", None)


def _mode(body: nn.Module) -> str | None:
    """Return what calls the layers: a training step, the teacher of SFT-Plus, or anything else (None)."""
    if torch.is_grad_enabled():
        return TRAIN if body.training else None
    adapter = next((layer for layer in body.modules() if hasattr(layer, "lora_A")), None)
    return TEACHER if adapter is not None and adapter.disable_adapters else None


def _fault(language: Any) -> str | None:
    """Return why the layers cannot be recorded, None if they can."""
    if language is None:
        return "the network has no language model of its own"
    weights = [parameter for parameter in language.parameters() if parameter.requires_grad]
    if not weights:
        return "nothing is trained in the layers"
    if weights[0].device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "no GPU"
    if len({weight.dtype for weight in weights}) > 1 or len(weights) == len(list(language.parameters())):
        return "the base's weights are trained too"
    drops = any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in language.modules())
    if drops or language.config.attention_dropout:
        return "there is dropout"
    if language.gradient_checkpointing:
        return "layers are recomputed in the backward pass"
    return None


class _Shapes:
    """The passes that were recorded, by shape."""

    def __init__(self, network: Any, language: Any, plain: Callable[..., Any], found: dict[str, str]) -> None:
        self.network, self.found = network, found
        self.plain = plain
        self.parameters = [each for each in language.parameters() if each.requires_grad]
        self.adapters = [layer for layer in language.modules() if hasattr(layer, "lora_A")]
        self.seen: Counter[Any] = Counter()
        self.kept: dict[Any, Passes] = {}
        self.pools: dict[str, Any] = {}

    def passes(self, mode: str, states: Tensor, positions: Tensor | None) -> Passes | None:
        """Return the passes for a call, recorded now if its shape comes a second time; None to run the layers."""
        placed = None if positions is None else tuple(positions.shape)
        key = (mode, tuple(states.shape), states.dtype, states.requires_grad, placed)
        if key in self.kept or self.found["CUDA graphs"] != "on":
            return self.kept.get(key)
        self.seen[key] += 1
        if self.seen[key] < 2 or len(self.kept) >= MOST:
            return None
        made = Recorded if states.device.type == "cuda" else Passes
        rounded = getattr(self.network, ROUNDED, None)
        copies = rounded.copies if rounded is not None else None
        try:
            passes = made(self._run(), self.parameters, mode == TRAIN, states, positions)
            if isinstance(passes, Recorded):
                # a teacher runs between a forward and a backward pass, whose memory it must not write to
                passes.record(self.pools.setdefault(mode, torch.cuda.graph_pool_handle()))
        except RuntimeError as error:
            self.found["CUDA graphs"] = f"a recording failed ({str(error)[:160]})"
            return None
        finally:
            if rounded is not None:
                rounded.copies = copies
        self.kept[key] = passes
        return passes

    def _run(self) -> Run:
        rounded = getattr(self.network, ROUNDED, None)
        kind = self.parameters[0].device.type
        half = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}

        def run(states: Tensor, positions: Tensor | None) -> Tensor:
            # a cache of casts would keep what one recording made for the next
            with torch.autocast(kind, **half, cache_enabled=False):
                if rounded is not None:
                    rounded.refresh()
                given = {"inputs_embeds": states, "position_ids": positions, "use_cache": False}
                out = self.plain(attention_mask=dict(UNMASKED), **given)
            hidden: Tensor = out.last_hidden_state
            return hidden

        return run


class Passes:
    """Forward and backward pass of the layers over memory of their own, which is what a graph can record.

    This class runs the layers again each time; `Recorded` replays them.

    Args:
        run: The layers.
        parameters: What is trained in them.
        trains: Whether there is a backward pass.
        states, positions: The first inputs.
    """

    def __init__(
        self, run: Run, parameters: list[nn.Parameter], trains: bool, states: Tensor, positions: Tensor | None
    ) -> None:
        self.run, self.parameters, self.trains = run, parameters, trains
        self.sizes = [parameter.numel() for parameter in parameters]
        self.states = states.detach().clone().requires_grad_(trains and states.requires_grad)
        self.positions = None if positions is None else positions.clone()
        self.out = self.above = torch.empty(0)

    def __call__(self, states: Tensor, positions: Tensor | None) -> Tensor:
        """Return the last hidden states (B, T, H)."""
        if not self.trains:
            return self.forward(states, positions)
        out: Tensor = _Replay.apply(self, states, positions, *self.parameters)
        return out

    def fill(self, states: Tensor, positions: Tensor | None) -> None:
        """Copy inputs to where the passes read them."""
        with torch.no_grad():
            self.states.copy_(states)
            if self.positions is not None:
                self.positions.copy_(positions)

    def compute(self) -> Tensor:
        """Run the layers, with a graph of autograd if there is a backward pass."""
        with torch.set_grad_enabled(self.trains):
            return self.run(self.states, self.positions)

    def gradients(self, out: Tensor, above: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the gradient of the inputs, and those of all parameters in one row."""
        given = [self.states] if self.states.requires_grad else []
        slopes = torch.autograd.grad(out, [*given, *self.parameters], above, allow_unused=True)
        trained = [
            torch.zeros_like(parameter) if slope is None else slope
            for slope, parameter in zip(slopes[len(given) :], self.parameters, strict=True)
        ]
        return (slopes[0] if given else None), torch.cat([each.flatten() for each in trained])

    def forward(self, states: Tensor, positions: Tensor | None) -> Tensor:
        """Return the last hidden states."""
        self.fill(states, positions)
        self.out = self.compute()
        return self.out.detach().clone()

    def backward(self, above: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return gradients as `gradients` does, in memory that is the caller's."""
        return self.gradients(self.out, above)


class Recorded(Passes):
    """The same passes as two CUDA graphs."""

    def record(self, pool: Any) -> None:
        """Record the passes into a memory pool, and compare them with the layers.

        Raises:
            RuntimeError: They cannot be recorded, or differ.
        """
        out = self.compute()
        generator = torch.Generator(out.device).manual_seed(0)
        self.above = torch.empty_like(out).normal_(generator=generator)
        expected = [out.detach().clone(), *(self.gradients(out, self.above) if self.trains else ())]
        del out
        again = self.compute()
        twice = [again.detach().clone(), *(self.gradients(again, self.above) if self.trains else ())]
        del again
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # the recording takes memory of its own, this was its size
        self.graphs = [torch.cuda.CUDAGraph() for _ in range(1 + self.trains)]
        with _without_caches():
            with _capturing(self.graphs[0], pool):
                self.out = self.compute()
            if self.trains:
                with _capturing(self.graphs[1], pool):
                    self.slopes = self.gradients(self.out, self.above)
        self.out = self.out.detach()
        for graph in self.graphs:
            graph.replay()
        reason = difference(expected, twice, [self.out, *(self.slopes if self.trains else ())])
        if reason is not None:
            raise RuntimeError(reason)

    def forward(self, states: Tensor, positions: Tensor | None) -> Tensor:
        """Return the last hidden states."""
        self.fill(states, positions)
        self.graphs[0].replay()
        return self.out.clone()

    def backward(self, above: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return gradients as `gradients` does, in memory that is the caller's."""
        self.above.copy_(above)
        self.graphs[1].replay()
        d_states, flat = self.slopes
        return (None if d_states is None else d_states.clone()), flat.clone()


def difference(
    layers: Sequence[Tensor | None], again: Sequence[Tensor | None], replayed: Sequence[Tensor | None]
) -> str | None:
    """Return which result of a recording is not that of the layers, None if all are.

    Layers on a GPU may differ from themselves, since some kernels add in any order: twice that is allowed, and at
    least `LIMIT`, the rounding of bf16.

    Args:
        layers, again: Hidden states, gradient of the inputs and gradient of the weights of two passes of the layers.
        replayed: The same of the recording.
    """
    names = ("hidden states", "the gradient of the inputs", "the gradient of the weights")
    for name, first, second, ours in zip(names, layers, again, replayed, strict=False):
        if first is None or second is None or ours is None:
            continue
        size = first.float().norm()
        apart = float((ours.float() - first.float()).norm() / size)
        noise = float((second.float() - first.float()).norm() / size)
        # not "apart > limit", because NaN is wrong as well
        if not apart <= max(LIMIT, 2 * noise):
            return (
                f"{name} differ from the layers' by {apart:.1e}, the layers' from themselves by {noise:.1e}"
            )
    return None


@contextmanager
def _without_caches() -> Iterator[None]:
    """Let fla work out what it keeps of the borders of rows: it forgets them, and a graph goes on reading them."""
    module: Any = sys.modules.get("fla.utils")
    name = "FLA_DISABLE_TENSOR_CACHE"
    before = getattr(module, name, None)
    if module is not None:
        setattr(module, name, True)
    try:
        yield
    finally:
        if module is not None:
            setattr(module, name, before)


@contextmanager
def _capturing(graph: Any, pool: Any) -> Iterator[None]:
    """Record what is launched within. Other threads may go on: a loader's copies batches to pinned memory."""
    torch.cuda.synchronize()
    collects = gc.isenabled()
    gc.disable()  # what it frees may not be freed now
    try:
        with torch.cuda.stream(_stream()):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                yield
            finally:
                graph.capture_end()
    finally:
        if collects:
            gc.enable()
    torch.cuda.synchronize()


@cache
def _stream() -> Any:
    """Return the stream of all recordings; a matrix product keeps memory for each stream it has seen."""
    return torch.cuda.Stream()


class _Replay(torch.autograd.Function):
    """The passes as one node of autograd, so that hooks on parameters see their gradients."""

    calls = 0

    @staticmethod
    def forward(
        ctx: Any, passes: Passes, states: Tensor, positions: Tensor | None, *parameters: Tensor
    ) -> Tensor:
        _Replay.calls = ctx.call = _Replay.calls + 1
        ctx.passes, ctx.shapes = passes, [parameter.shape for parameter in parameters]
        return passes.forward(states, positions)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.call != _Replay.calls:  # all shapes share their memory
            raise RuntimeError(f"{TWICE}; train with `cuda_graphs: false`")
        d_states, flat = ctx.passes.backward(above)
        parts = flat.split(ctx.passes.sizes)
        return (
            None,
            d_states,
            None,
            *(part.view(shape) for part, shape in zip(parts, ctx.shapes, strict=True)),
        )
