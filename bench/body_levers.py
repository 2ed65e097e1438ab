"""What each lever gives on the body of the model alone: forward and backward of one fixed batch, one card.

    python bench/body_levers.py --work runs/speed          the real shape, text rows of 768 tokens, 12,288 in all
    python bench/body_levers.py --work runs/try --tiny     the script alone, small, on a CPU

How it works: one process applies the levers one after the other, each on top of those before it, and measures
every rung: milliseconds of a step, milliseconds in which a kernel runs, launches, peak memory, and how far the
adapters' gradient is from that of the first rung. Embedding, head, picture tower and optimiser are left out. The
rungs change this process only."""

from __future__ import annotations

import argparse
import faulthandler
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pieces
import train_gpu
from pieces import Piece

Rung = Callable[[Any], Any]
FAILS = (RuntimeError, ImportError, TypeError, AttributeError, ValueError)
"""What a rung may raise that does not run here; it is noted, and the next one is tried."""


def bf16_adapters(model: Any) -> None:
    """Run adapter products in bf16 with fp32 masters."""
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.cast_input_dtype_enabled = False


def fused(model: Any) -> None:
    """Use this package's fused layers; they stay until the process ends."""
    from dfktrain.engines import fused_layers

    context = fused_layers(model, True)
    found = context.__enter__()
    OPEN.append(context)
    if kept := {part: why for part, why in found.items() if why != "on"}:
        raise RuntimeError(f"not fused: {kept}")


OPEN: list[Any] = []
"""Contexts that are still entered."""


def compiled_mlp(model: Any) -> None:
    """Compile the MLP blocks, adapters included; the plain product again, which the compiler fuses itself."""
    import torch
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    def forward(mlp: Any, states: Any) -> Any:
        return mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(states)) * mlp.up_proj(states))

    library.Qwen3_5MLP.forward = forward
    for module in model.modules():
        if type(module).__name__ == "Qwen3_5MLP":
            module.compile(dynamic=False)


def compiled_layers(model: Any) -> None:
    """Compile whole decoder layers; graph breaks at what the compiler does not take."""
    for module in model.modules():
        if type(module).__name__ == "Qwen3_5DecoderLayer":
            module.compile(dynamic=False)


def snapshot(model: Any) -> Callable[[], None]:
    """Return what takes a rung back that does not run here."""
    from transformers.models.qwen3_5 import modeling_qwen3_5 as library

    classes = (library.Qwen3_5RMSNormGated, library.Qwen3_5MLP, library.Qwen3_5RMSNorm)
    forwards, convolve = [each.forward for each in classes], library.causal_conv1d_fn
    compiled = [(each, each._compiled_call_impl) for each in model.modules()]

    def restore() -> None:
        library.causal_conv1d_fn = convolve
        for each, forward in zip(classes, forwards, strict=True):
            each.forward = forward
        for module, call in compiled:
            module._compiled_call_impl = call

    return restore


LADDERS: dict[str, tuple[tuple[str, Rung], ...]] = {
    "levers-graph": (
        ("PEFT as it is: adapters in fp32", lambda model: None),
        ("adapters in bf16", bf16_adapters),
        ("fused layers", fused),
    ),
    "levers": (
        ("adapters in bf16", bf16_adapters),
        ("MLP compiled", compiled_mlp),
        ("layers compiled", compiled_layers),
    ),
}
"""Piece -> its rungs. The first one ends with the step as a CUDA graph, the second is without fused layers."""


class Body:
    """The body of the model with adapters, and one fixed batch of embeddings."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from step_recorder import seed_adapter
        from train_contenders import Task, adapted, lift_refusal

        self.cuda = torch.cuda.is_available() and not options.tiny
        if self.cuda:
            lift_refusal()
        self.model = adapted(Task(options.work, "text", options.tiny, self.cuda, 1))
        self.model.train()
        self.moved = seed_adapter(self.model)
        self.text = self.model.get_base_model().model  # below its head, with the hooks of fused layers
        rows, length = (2, 48) if options.tiny else (16, 768)
        hidden = self.model.config.text_config.hidden_size
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(rows, length, hidden, generator=generator)
        self.states = states.to(self.model.device, self.model.dtype).requires_grad_(True)
        self.weight = torch.randn(rows, length, hidden, generator=generator).to(self.states)

    def step(self) -> None:
        """Forward and backward."""
        import torch

        with torch.autocast(
            self.states.device.type, dtype=torch.bfloat16, enabled=self.cuda, cache_enabled=False
        ):
            out = self.text(inputs_embeds=self.states, use_cache=False).last_hidden_state
        (out * self.weight).sum().backward()

    def clear(self) -> None:
        """Drop the gradients."""
        self.states.grad = None
        self.model.zero_grad(set_to_none=True)

    def gradient(self) -> Any:
        """Return the adapters' gradient of one step, flat, in fp64."""
        import torch

        self.clear()
        self.step()
        return torch.cat([each.grad.double().flatten() for _, each in self.moved if each.grad is not None])

    def measure(self, first: Any) -> tuple[dict[str, Any], Any]:
        """Return what one rung costs, and its gradient."""
        import torch
        from step_recorder import kernels

        began = time.perf_counter()
        gradient = self.gradient()
        warm = time.perf_counter() - began
        self.wait()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(2 if not self.cuda else 8):
            self.clear()
            self.wait()
            start = time.perf_counter()
            self.step()
            self.wait()
            seconds.append(time.perf_counter() - start)
        found: dict[str, Any] = {"ms": 1e3 * statistics.median(seconds[1:]), "warm_s": warm}
        if first is not None:
            found["off"] = float(1 - torch.dot(gradient, first) / (gradient.norm() * first.norm()))
        if self.cuda:
            found["gib"] = torch.cuda.max_memory_allocated() / 2**30
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                self.clear()
                self.step()
                self.wait()
            told = kernels(profile, 1, 1)
            found |= {
                "busy_ms": 1e3 * told["busy_s"],
                "launches": told["launches"],
                "kernels": told["kernels"][:30],
            }
        return found, gradient

    def wait(self) -> None:
        """Wait for the card."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    def graphed(self) -> dict[str, Any]:
        """Return the milliseconds of the step replayed as one CUDA graph: no launches by Python at all."""
        import torch

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.clear()
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.clear()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        seconds = []
        for _ in range(8):
            self.wait()
            start = time.perf_counter()
            graph.replay()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return {"ms": 1e3 * statistics.median(seconds[1:])}


def levers(options: argparse.Namespace) -> None:
    """Climb the ladder."""
    body = Body(options)
    found: dict[str, Any] = {"tokens": body.states.shape[0] * body.states.shape[1], "rungs": {}}
    first = None
    for name, apply in LADDERS[options.piece]:
        if time.time() - pieces.began() > options.seconds - 25:
            found["rungs"][name] = {"failed": "no time left"}
            continue
        restore = snapshot(body.model)
        try:
            apply(body.model)
            found["rungs"][name], gradient = body.measure(first)
            first = gradient if first is None else first
        except FAILS as error:
            found["rungs"][name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
            restore()
        pieces.write_result(options.work, options.piece, found, partial=True)
    if body.cuda and "graph" in options.piece:
        try:
            found["rungs"]["the same as a CUDA graph"] = body.graphed()
        except FAILS as error:
            failed = f"{type(error).__name__}: {error}"[:200]
            found["rungs"]["the same as a CUDA graph"] = {"failed": failed}
    pieces.write_result(options.work, options.piece, found)


def table(work: Path) -> str:
    """Return the ladders in Markdown."""
    found = pieces.read_results(work)
    rate = found.get("card", {}).get("flops", 0)
    lines = [f"{found.get('card', {}).get('name', '?')}, {rate / 1e12:.0f} TFLOP/s"]
    for piece in PIECES:
        one = found.get(piece, {})
        tokens = one.get("tokens", 0)
        lines += ["", f"{piece}: {tokens} tokens a step {one.get('failed', '')}", "",
                  "| each on top of those above | ms | tokens/s | kernels run, ms | launches | GiB | first call s "
                  "| 1-cos to the first | note |", "|---" * 9 + "|"]  # fmt: skip
        for name, rung in one.get("rungs", {}).items():
            cells = [train_gpu.number(rung.get(key), digits) for key, digits in (
                ("busy_ms", 1), ("launches", 0), ("gib", 1), ("warm_s", 1))]  # fmt: skip
            off = f"{rung['off']:.1e}" if "off" in rung else "-"
            speed = f"{1e3 * tokens / rung['ms']:.0f}" if rung.get("ms") else "-"
            lines.append(f"| {name} | {train_gpu.number(rung.get('ms'), 1)} | {speed} | {' | '.join(cells)} "
                         f"| {off} | {rung.get('failed', '')} |")  # fmt: skip
    return "\n".join(lines)


PIECES = tuple(LADDERS)


def main() -> None:
    """Do what is missing and print the table; with --piece, be one worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="the built-in model, in fp32, on the CPU")
    parser.add_argument("--only", nargs="+", help="only these pieces")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing that would end later")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to unpack for the pieces")
    parser.add_argument("--retry", action="store_true", help="run failed pieces again")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.piece:
        faulthandler.dump_traceback_later(max(10, options.seconds - 8))
        run = {"card": train_gpu.card, "prepare": train_gpu.prepare}.get(options.piece, levers)
        run(options)
        return
    if options.wheels:
        pieces.unpack_wheels(options.wheels, options.work / "site")
        sys.path.insert(0, str(options.work / "site"))
    shape = ("--tiny",) if options.tiny else ()
    asked = [Piece(name, shape, 150) for name in ("card", "prepare")]
    asked += [Piece("levers-graph", shape, 100, "I-cold"), Piece("levers", shape, 160, "I-cold")]
    asked = [piece for piece in asked if options.only is None or piece.name in options.only]
    pieces.run_all(Path(__file__).resolve(), options.work, asked, options.minutes, options.retry)
    text = table(options.work)
    (options.work / "levers.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
