"""What continuous batching reaches on a card: answers of forced lengths, decode steps alone, and how far its
numbers are from transformers' own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import continuous_checks
import gpu_workload
import pieces
import product_tiles

ROWS = (1, 32, 128)
"""Batch sizes at which a decode step is compared with the bytes it must move."""

RFT_ROWS, RFT_DRAWS = 125, 4
"""A stage of rejection sampling of 1,000 rows, at an eighth."""

STEPS = 64
"""Tokens of each answer whose steps are timed."""


class ForcedRows:
    """Ends every answer at its own length and never before, and takes the time of each step."""

    def __init__(self, ends: list[int]) -> None:
        self.lengths: dict[str, int] = {}
        self.ends = ends
        self.places: Any = None
        self.stamps: list[tuple[int, Any]] = []
        self.firsts: dict[str, float] = {}
        self.install()

    def install(self) -> None:
        """Wrap what chooses tokens and what computes logits."""
        import torch

        from dfkeval.backends._continuous.decoder import Decoder
        from dfkeval.backends._continuous.device import Stepper
        from dfkeval.backends._continuous.rows import Row
        from dfkeval.backends._continuous.sampler import FREE, Sampler

        choose, forward, forced = Sampler.choose, Stepper.forward, self

        def without_ends(self: Any, logits: Any, *rest: Any) -> Any:
            if forced.places is None:
                forced.places = torch.tensor(forced.ends, device=logits.device)
            return choose(self, logits.index_fill_(1, forced.places, float("-inf")), *rest)

        def end_in_time(self: Any) -> tuple[int, bool]:
            last = len(self.ids) + 1 == forced.lengths[self.request.id]
            return (forced.ends[0] if last else FREE), False

        def stamped(self: Any, slots: Any) -> Any:
            logits = forward(self, slots)
            forced.stamps.append((len(slots), _stamp()))
            return logits

        Sampler.choose, Row.next, Stepper.forward = without_ends, end_in_time, stamped  # type: ignore[method-assign]
        for name in ("read", "begin", "forward", "choose"):
            setattr(Stepper, name, self._noted(name, getattr(Stepper, name)))
        Decoder.features = self._noted("features", Decoder.features)  # type: ignore[method-assign]

    def _noted(self, name: str, call: Any) -> Any:
        """Take the seconds of the first call, the device's work included."""

        def noted(*given: Any) -> Any:
            if name in self.firsts:
                return call(*given)
            start = time.perf_counter()
            made = call(*given)
            _wait()
            self.firsts[name] = round(time.perf_counter() - start, 2)
            return made

        return noted

    def step_ms(self, rows: int) -> float | None:
        """Return the median milliseconds between two steps of `rows` rows."""
        gaps = [
            start.elapsed_time(end) if hasattr(start, "elapsed_time") else 1e3 * (end - start)
            for (before, start), (now, end) in zip(self.stamps, self.stamps[1:], strict=False)
            if before == now == rows
        ]
        return statistics.median(gaps) if gaps else None


def _stamp() -> Any:
    import torch

    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _started(bench: Any, rows: int) -> tuple[Any, ForcedRows]:
    """Return the backend with continuous batching, whose answers end at their lengths."""
    from dfkeval import backends
    from dfkeval.backends import transformers as member

    config = member.Config(model=bench.base, batching="continuous", batch_size=rows, workers=12)
    if bench.tiny:
        config = config.model_copy(update={"batch_size": 4, "workers": 2})
    backend: Any = backends.start(config)
    own = backend.model.generation_config.eos_token_id
    ends = {*bench.forced.ends, *(own if isinstance(own, list) else [own])} - {None}
    return backend, ForcedRows(sorted(ends, key=lambda each: each != bench.forced.ends[0]))


def _request(one: dict[str, Any], name: str, draw: int = 0) -> Any:
    from dfkeval import backends

    return backends.Request(
        id=name, messages=one["messages"], images=tuple(one["images"]), tools=one["tools"], draw_index=draw
    )


def answers(bench: Any) -> dict[str, Any]:
    """All requests at once, as an evaluation asks them; then once more, when nothing is new; then draws."""
    from dfkeval import backends

    backend, forced = _started(bench, 128)
    marks = {"loaded_s": time.time() - pieces.began()}
    known = {each["id"]: each for each in bench.requests}
    forced.lengths = {name: each["length"] for name, each in known.items()}
    asked = [_request(each, each["id"]) for each in bench.requests]
    product_tiles.use_known(bench)
    bench.start()
    for made in backend.generate(asked, backends.Sampling(max_new_tokens=bench.limit)):
        if made.error:
            raise SystemExit(made.error)
        if bench.answered([known[made.id]], [made.n_output_tokens or 0]):
            break
    sizes = sorted({rows for rows, _ in forced.stamps})
    found = {"step_ms": {rows: forced.step_ms(rows) for rows in sizes[-3:]}, "steps_done": len(forced.stamps)}
    found |= {"firsts_s": forced.firsts, **marks}
    if len(bench.answers) < len(asked):
        return found
    pieces.write_result(bench.work, bench.piece, bench.found() | found, partial=True)
    greedy = backends.Sampling(max_new_tokens=bench.limit)
    found["again"] = _timed(backend, asked, greedy)
    pieces.write_result(bench.work, bench.piece, bench.found() | found, partial=True)
    if bench.piece != "generate-E-warm":
        return found
    few = bench.requests[: RFT_ROWS if bench.cuda else 4]
    drawn = [_request(each, f"{each['id']}#{draw}", draw) for each in few for draw in range(RFT_DRAWS)]
    forced.lengths |= {one.id: known[one.id.partition("#")[0]]["length"] for one in drawn}
    for name, more in (("rft", {}), ("rft_top_p", {"top_p": 0.9, "top_k": 50})):
        sampling = backends.Sampling(max_new_tokens=bench.limit, temperature=0.7, **more)
        found[name] = _timed(backend, drawn, sampling)
        pieces.write_result(bench.work, bench.piece, bench.found() | found, partial=True)
    return found


def _timed(backend: Any, asked: list[Any], sampling: Any) -> dict[str, float]:
    """Return how fast a call is answered from its start to its end; it is called a second time if the first one
    has recorded steps."""
    found: dict[str, float] = {}
    for _ in range(2):
        before = len(backend.engine.stepper.recorder._made)
        start = time.perf_counter()
        made = list(backend.generate(asked, sampling))
        seconds = time.perf_counter() - start
        if any(each.error for each in made):
            raise SystemExit(next(each.error for each in made if each.error))
        tokens = sum(each.n_output_tokens or 0 for each in made)
        found = {
            "answers": len(made), "seconds": seconds, "samples_per_s": len(made) / seconds,
            "tokens_per_s": tokens / seconds,
        }  # fmt: skip
        if len(backend.engine.stepper.recorder._made) == before:
            break
    return found


def two_cards(bench: Any) -> dict[str, Any]:
    """Half of the requests on each of two cards, as `--shard 1/2` and `--shard 2/2` cut them, beside all of them on
    one; each card answers once to warm up, and what counts is the second time."""
    import torch

    bench.start()
    if torch.cuda.device_count() < 2:
        return {"failed": "there is one card"}
    found: dict[str, Any] = {}
    for parts in (1, 2):
        running = []
        for part in range(parts):
            words = [
                sys.executable,
                str(Path(__file__).with_name("generate_gpu.py")),
                "--work",
                str(bench.work),
            ]
            words += [
                "--piece",
                f"generate-Epart{parts}-{part}",
                "--seconds",
                "110",
                "--part",
                f"{part}/{parts}",
            ]
            words += ["--requests", str(bench.wanted)]
            at = os.environ | {"CUDA_VISIBLE_DEVICES": str(part), pieces.BEGAN: str(time.time())}
            running.append(subprocess.Popen(words, env=at))
        if any(each.wait() for each in running):
            return found | {"failed": "a part ended with an error"}
        results = pieces.read_results(bench.work)
        rates = [results[f"generate-Epart{parts}-{part}"]["again"]["samples_per_s"] for part in range(parts)]
        found[f"{parts}"] = sum(rates)
    return {"cards": found, "times": found["2"] / found["1"]}


def part(bench: Any) -> dict[str, Any]:
    """The requests of one part, twice."""
    from dfkeval import backends

    backend, forced = _started(bench, 128)
    asked = [_request(each, each["id"]) for each in bench.requests]
    forced.lengths = {each["id"]: each["length"] for each in bench.requests}
    bench.start()
    sampling = backends.Sampling(max_new_tokens=bench.limit)
    list(backend.generate(asked, sampling))
    return {"again": _timed(backend, asked, sampling)}


def steps(bench: Any) -> dict[str, Any]:
    """Decode steps at several batch sizes beside the time in which memory could move their bytes, and the
    kernels of a whole call: prefill of the rows, then the steps."""
    import torch

    from dfkeval import backends

    backend, forced = _started(bench, ROWS[-1])
    card = pieces.read_results(bench.work).get("card", {})
    texts = [each for each in bench.requests if not each["images"]]
    sampling = backends.Sampling(max_new_tokens=STEPS)
    bench.start()
    found: dict[int, dict[str, Any]] = {}
    for rows in ROWS[:1] if bench.tiny else ROWS:
        chosen = (texts * -(-rows // len(texts)))[:rows]
        asked = [_request(each, str(at)) for at, each in enumerate(chosen)]
        forced.lengths = dict.fromkeys(map(str, range(rows)), STEPS)

        def call(asked: Any = asked) -> list[Any]:
            made = list(backend.generate(asked, sampling))
            _wait()
            return made

        call()  # records, tunes
        forced.stamps.clear()
        start = time.perf_counter()
        made = call()
        one: dict[str, Any] = {
            "call_ms": 1e3 * (time.perf_counter() - start),
            "step_ms": forced.step_ms(rows),
        }
        length = statistics.mean(each.n_prompt_tokens or 0 for each in made) + STEPS / 2
        moved = gpu_workload.decode_bytes(backend.model.config, rows, length)
        one["bound_ms"] = 1e3 * moved / card["bandwidth"] if card.get("bandwidth") else None
        one["length"], one["first_token_ms"] = (
            length,
            1e3 * max(each.first_token_seconds or 0 for each in made),
        )
        found[rows] = one
        pieces.write_result(bench.work, "generate-Estep", {"steps": found}, partial=True)
    more: dict[str, Any] = {"attention": continuous_checks.attention_apart("cuda" if bench.cuda else "cpu")}
    pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    if bench.cuda:
        with torch.inference_mode():
            more["products"] = product_tiles.found(backend)
        pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
        product_tiles.use_known(bench)
        backend.engine.stepper = None
        for rows in (1, 32):
            found[rows]["own_products_step_ms"] = _step_ms(bench, backend, forced, texts, rows)
            pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    more["prefill"] = _prefill(bench, backend)
    for rows in [32] if bench.cuda else list(found):
        asked = [_request(each, str(at)) for at, each in enumerate((texts * rows)[:rows])]
        forced.lengths = dict.fromkeys(map(str, range(rows)), STEPS)
        found[rows]["kernels"] = _kernels(lambda asked=asked: list(backend.generate(asked, sampling)))
        pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    return {"steps": found, **more}


def _step_ms(bench: Any, backend: Any, forced: ForcedRows, texts: list[Any], rows: int) -> float | None:
    """Return the milliseconds of a step of so many rows, once everything is recorded."""
    from dfkeval import backends

    asked = [_request(each, str(at)) for at, each in enumerate((texts * rows)[:rows])]
    forced.lengths = dict.fromkeys(map(str, range(rows)), STEPS)
    for _ in range(2):
        forced.stamps.clear()
        list(backend.generate(asked, backends.Sampling(max_new_tokens=STEPS)))
        _wait()
    return forced.step_ms(rows)


def _prefill(bench: Any, backend: Any) -> dict[str, Any]:
    """Return how fast prompts are read, and how far the logits behind them are from those of a prefill whose
    last 32 tokens are read by decode steps, relative to their size."""
    import torch

    from dfkeval.backends._continuous.packing import PromptPart, pack

    decoder = backend.engine.stepper.decoder
    texts = [each for each in bench.requests if not each["images"]][: min(16, decoder.caches.slots)]
    ids = [bench.processor.tokenizer.encode(bench.prompt(each), add_special_tokens=False) for each in texts]

    def packed(rows: list[list[int]]) -> Any:
        parts = [PromptPart(at, 0, row) for at, row in enumerate(rows)]
        return pack(parts, decoder.weights.sizes.taps, lambda each: each.to(decoder.device))

    with torch.inference_mode():
        whole, begun = packed(ids), packed([row[:-32] for row in ids])
        found: dict[str, Any] = {"tokens": sum(map(len, ids))}
        for run in ("cold_ms", "queued_ms", "ms"):
            decoder.caches.clear(whole.slots)
            _wait()
            start = time.perf_counter()
            logits = decoder.logits(decoder.prefill(whole)[whole.last])
            found["queued_ms"] = 1e3 * (time.perf_counter() - start)
            _wait()
            found[run if run != "queued_ms" else "ms"] = 1e3 * (time.perf_counter() - start)
        decoder.caches.clear(whole.slots)
        decoder.prefill(begun)
        rows = torch.arange(len(ids), device=decoder.device)
        decoder.lengths[rows] = torch.tensor([len(row) - 32 for row in ids], device=decoder.device)
        decoder.shifts[rows] = 0
        for back in range(32, 0, -1):
            decoder.tokens[rows] = torch.tensor([row[-back] for row in ids], device=decoder.device)
            other = decoder.step(rows)
            decoder.lengths[rows] += 1
        apart, size = (logits - other).float(), logits.float() - logits.float().mean()
        found["apart"] = float(apart.pow(2).mean().sqrt() / size.pow(2).mean().sqrt())
        found["same_choice"] = float((logits.argmax(-1) == other.argmax(-1)).float().mean())
    return found


def _kernels(work: Any) -> dict[str, Any]:
    """Return the kernels of some work: name -> (calls, milliseconds in all), the longest first."""
    import torch

    if not torch.cuda.is_available():
        work()
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    events = [each for each in profile.key_averages() if each.self_device_time_total > 0]
    events.sort(key=lambda each: -each.self_device_time_total)
    return {each.key[:90]: (each.count, each.self_device_time_total / 1e3) for each in events[:25]}


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
