"""What continuous batching reaches on a card: answers of forced lengths, decode steps alone, and how far its
numbers are from transformers' own."""

from __future__ import annotations

import statistics
import time
from typing import Any

import gpu_workload
import pieces

ROWS = (1, 32, 128)
"""Batch sizes at which a decode step is compared with the bytes it must move."""

STEPS = 64
"""Tokens of each answer whose steps are timed."""


class ForcedRows:
    """Ends every answer at its own length and never before, and takes the time of each step."""

    def __init__(self, ends: list[int]) -> None:
        self.lengths: dict[str, int] = {}
        self.ends = ends
        self.places: Any = None
        self.stamps: list[tuple[int, Any]] = []
        self.install()

    def install(self) -> None:
        """Wrap what chooses tokens and what computes logits."""
        import torch

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


def _request(one: dict[str, Any], name: str) -> Any:
    from dfkeval import backends

    return backends.Request(
        id=name, messages=one["messages"], images=tuple(one["images"]), tools=one["tools"]
    )


def answers(bench: Any) -> dict[str, Any]:
    """All requests at once, as an evaluation asks them."""
    from dfkeval import backends

    backend, forced = _started(bench, 128)
    known = {each["id"]: each for each in bench.requests}
    forced.lengths = {name: each["length"] for name, each in known.items()}
    asked = [_request(each, each["id"]) for each in bench.requests]
    bench.start()
    for made in backend.generate(asked, backends.Sampling(max_new_tokens=bench.limit)):
        if made.error:
            raise SystemExit(made.error)
        if bench.answered([known[made.id]], [made.n_output_tokens or 0]):
            break
    sizes = sorted({rows for rows, _ in forced.stamps})
    return {"step_ms": {rows: forced.step_ms(rows) for rows in sizes[-3:]}, "steps_done": len(forced.stamps)}


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
    more: dict[str, Any] = {"prefill": _prefill(bench, backend)}
    pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    if bench.cuda:
        with torch.inference_mode():
            more["tiles"] = _tiles(backend)
        pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    for rows in found:
        asked = [_request(each, str(at)) for at, each in enumerate((texts * rows)[:rows])]
        forced.lengths = dict.fromkeys(map(str, range(rows)), STEPS)
        found[rows]["kernels"] = _kernels(lambda asked=asked: list(backend.generate(asked, sampling)))
        pieces.write_result(bench.work, "generate-Estep", {"steps": found, **more}, partial=True)
    return {"steps": found, **more}


def _network_forward_again() -> None:
    """Let transformers' own model answer without forced lengths."""
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForConditionalGeneration as Network

    Network.forward = Network.forward.__wrapped__


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


def _tiles(backend: Any) -> dict[str, Any]:
    """Return the microseconds of the gated delta rule's step by the columns and warps of one program."""
    import torch

    from dfkeval.backends._continuous import kernels

    decoder = backend.engine.stepper.decoder
    sizes, caches = decoder.weights.sizes, decoder.caches
    layers = [each for each in decoder.weights.layers if hasattr(each, "decay")]
    found: dict[str, Any] = {}
    kept = kernels.TILE
    for rows in ROWS[1:]:
        made = {"device": decoder.device, "dtype": decoder.weights.embed.dtype}
        mixed = torch.randn(rows, sizes.channels, **made)
        z = torch.randn(rows, sizes.value_heads * sizes.value_dim, **made)
        b, a = torch.randn(2, rows, sizes.value_heads, **made)
        slots = torch.arange(rows, device=decoder.device)
        for tile in ((128, 8), (128, 16), (64, 4), (64, 8), (32, 2), (32, 4), (16, 1), (16, 2), (8, 1)):
            kernels.TILE = tile

            def run(mixed: Any = mixed, gates: Any = (z, b, a), slots: Any = slots) -> None:
                for at, layer in enumerate(layers):
                    kernels.delta_step(mixed, gates, caches.state[at], slots, layer, sizes)

            run()
            graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph):
                run()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            graph.replay()
            events[0].record()
            for _ in range(10):
                graph.replay()
            events[1].record()
            torch.cuda.synchronize()
            micro = 1e3 * events[0].elapsed_time(events[1]) / 10 / len(layers)
            moved = 8 * rows * sizes.value_heads * sizes.key_dim * sizes.value_dim
            found[f"{rows} rows, {tile}"] = f"{micro:.1f} us, {moved / micro / 1e6:.2f} TB/s"
    kernels.TILE = kept
    return found


def check(bench: Any) -> dict[str, Any]:
    """How far the numbers are from transformers' own: texts of the built-in model in fp32, and errors of a
    decode step's logits in bf16 against fp32."""
    _network_forward_again()
    bench.start()
    found: dict[str, Any] = {"texts": _equal_texts(bench)}
    pieces.write_result(bench.work, "generate-Echeck", found, partial=True)
    return found | {"logits": _errors(bench)}


def _equal_texts(bench: Any) -> dict[str, Any]:
    """Return how many texts of the built-in model in fp32 are those of `model.generate`."""
    from dfkeval import backends
    from dfkeval.backends.transformers import Transformers
    from dfkeval.models import loader

    loaded = loader.load("tiny", dtype="float32")
    asked = [
        backends.Request(id=each["id"], messages=each["messages"], images=tuple(each["images"]))
        for each in bench.requests[:48]
    ]
    found: dict[str, Any] = {}
    for name, more in (("greedy", {}), ("drawn", {"temperature": 1.0, "top_p": 0.9, "seed": 5})):
        sampling = backends.Sampling(max_new_tokens=32, **more)
        texts = [
            {made.id: made.text for made in Transformers(loaded, batching=way, batch_size=16).generate(asked, sampling)}
            for way in ("static", "continuous")
        ]  # fmt: skip
        equal = sum(texts[0][key] == texts[1][key] for key in texts[0])
        found[name] = f"{equal} of {len(texts[0])}"
    return found


def _errors(bench: Any) -> dict[str, Any]:
    """Return the root mean square error of centred logits behind prompts and eight more tokens each, of ours
    and of the network itself in bf16, against the network in fp32."""
    import torch

    from dfkeval.backends._continuous import weights
    from dfkeval.backends._continuous.caches import Caches
    from dfkeval.backends._continuous.decoder import Decoder
    from dfkeval.backends._continuous.packing import PromptPart, pack

    model = bench.load()
    device, kind = model.device, model.dtype
    texts = [each for each in bench.requests if not each["images"]][:8]
    ids = [bench.processor.tokenizer.encode(bench.prompt(each), add_special_tokens=False) for each in texts]
    read = weights.read(model, kind)
    decoder = Decoder(model, read, Caches(read, len(ids), 2048))

    def plain() -> Any:
        return torch.cat(
            [model(input_ids=torch.tensor([row], device=device)).logits[0, -9:] for row in ids]
        ).float()

    with torch.inference_mode():
        parts = [PromptPart(at, 0, row[:-8]) for at, row in enumerate(ids)]
        packed = pack(parts, read.sizes.taps, lambda each: each.to(device))
        ours = [decoder.logits(decoder.prefill(packed)[packed.last])]
        rows = torch.arange(len(ids), device=device)
        decoder.lengths[rows] = torch.tensor([len(row) - 8 for row in ids], device=device)
        for back in range(8, 0, -1):
            decoder.tokens[rows] = torch.tensor([row[-back] for row in ids], device=device)
            ours.append(decoder.step(rows))
            decoder.lengths[rows] += 1
        mine, theirs = torch.stack(ours, 1).flatten(0, 1).float(), plain()
        exact = (model.float(), plain())[1]
    centred = [each - each.mean(-1, keepdim=True) for each in (mine, theirs, exact)]
    size = centred[2].pow(2).mean().sqrt()
    errors = [float((each - centred[2]).pow(2).mean().sqrt() / size) for each in centred[:2]]
    agree = [float((each.argmax(-1) == exact.argmax(-1)).float().mean()) for each in (mine, theirs)]
    return {
        "ours": errors[0],
        "transformers": errors[1],
        "argmax_ours": agree[0],
        "argmax_transformers": agree[1],
    }


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
