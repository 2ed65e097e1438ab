"""One table of how fast answers are written on one card, by this package and by others.

    python bench/generate_gpu.py --work runs/speed                    everything; start it again to go on
    python bench/generate_gpu.py --work runs/speed --only D B         these pieces alone
    python bench/generate_gpu.py --work runs/try --tiny               the script alone, small, also on a CPU

Requests (bench/gpu_workload.py): half with a picture, one system prompt with tools, answers of a forced
length of 32 to 256 tokens. The first word of a prompt says how long its answer gets; a wrapper around the
model's forward reads it off the prompt's tokens and lets the end of the turn win at that length and never
before, so every way to generate writes the same numbers of tokens without knowing of it. Every piece is a
process of its own and stops at its time limit; rates are over what was answered until then."""

from __future__ import annotations

import argparse
import faulthandler
import functools
import importlib
import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import continuous_checks
import continuous_gpu
import generate_starts
import gpu_workload
import pieces
import train_gpu
from forced_lengths import ForcedLengths
from generate_table import table
from pieces import Piece

STEP_ROWS = (1, 32, 128)
"""Batch sizes at which a decode step is compared with the bytes it must move."""

BATCH_S = 0.5
"""Answers that come within so many seconds of the first one belong to its batch."""

SECONDS = {"A1": 50, "A4": 75, "B": 110, "C": 60, "D": 85, "step": 70,
           "E": 120, "E-warm": 75, "Estep": 120, "Echeck": 70, "E2": 240}  # fmt: skip


class Bench:
    """A loaded model with its requests, and the account of what was answered."""

    def __init__(self, options: argparse.Namespace) -> None:
        if "-E" in options.piece:  # as the package itself begins; the others import what they like
            from dfkeval.models.light_import import light_transformers

            light_transformers()
        import torch
        from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForConditionalGeneration as Network

        self.work, self.tiny = options.work, options.tiny
        self.until = options.seconds - 12
        self.piece, self.wanted = options.piece, options.requests
        self.base = gpu_workload.base_name(self.work, self.tiny)
        folder = self.work / "requests"
        text = (folder / "requests.jsonl").read_text(encoding="utf-8")
        lines = text.splitlines()[: options.requests]
        self.requests: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if options.part:
            which, parts = map(int, options.part.split("/"))
            self.requests = self.requests[which::parts]
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self.imported = time.time() - pieces.began()
        ids = {int(key): value for key, value in facts["length_ids"].items()}
        self.forced = ForcedLengths(ids, [facts["end"]])
        self.forced.install(Network)
        self.limit = self.forced.longest
        self.cuda = torch.cuda.is_available() and not self.tiny
        self.answers: list[tuple[float, int, bool]] = []
        self.started = 0.0

    @functools.cached_property
    def processor(self) -> Any:
        """Return the model's processor."""
        from dfkeval.models.processor import load_processor

        return load_processor(self.base)

    def load(self) -> Any:
        """Return transformers' own model."""
        import torch
        from transformers import AutoModelForImageTextToText

        from dfkeval.models import fla_settings
        from dfkeval.models.source import model_source

        kind = torch.bfloat16 if self.cuda else torch.float32
        source = model_source(self.base)
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=kind, attn_implementation="sdpa")
        model = model.to("cuda" if self.cuda else "cpu").eval()
        if self.cuda:  # settings that won are kept for everybody, so that nobody is measured while it tunes
            fla_settings.keep_for(model)
        self.forced.ends = sorted({*self.forced.ends, *_listed(model.generation_config.eos_token_id)},
                                  key=lambda each: each != self.forced.ends[0])  # fmt: skip
        return model

    def prompt(self, request: dict[str, Any]) -> str:
        """Return the rendered prompt."""
        return str(self.processor.apply_chat_template(
            request["messages"], tools=request["tools"], tokenize=False, add_generation_prompt=True
        ))  # fmt: skip

    def inputs(self, requests: list[dict[str, Any]]) -> Any:
        """Return left-padded tensors of a batch."""
        from dfkdata.media.images import open_image

        images = [[open_image(path) for path in each["images"]] for each in requests]
        return self.processor(
            text=[self.prompt(each) for each in requests], images=[some for some in images if some] or None,
            padding=True, padding_side="left", return_tensors="pt",
        )  # fmt: skip

    def generate(self, model: Any, inputs: Any) -> list[int]:
        """Return the answers' numbers of tokens."""
        import torch

        with torch.inference_mode():
            made = model.generate(**inputs.to(model.device), max_new_tokens=self.limit, do_sample=False)
        new = made[:, inputs["input_ids"].shape[1] :]
        return [int(count) for count in ((new == self.forced.ends[0]).int().argmax(1) + 1).tolist()]

    def start(self) -> None:
        """Begin to count."""
        self.started = time.time()

    def answered(self, requests: list[dict[str, Any]], tokens: list[int]) -> bool:
        """Note a batch of answers; True when the time is over."""
        now = time.time()
        for request, count in zip(requests, tokens, strict=True):
            self.answers.append((now, count, count == request["length"]))
        return now - pieces.began() > self.until

    def found(self) -> dict[str, Any]:
        """Return the rates: of everything, and of what came after the first batch, which may tune kernels."""
        import torch

        made: dict[str, Any] = {
            "imported_s": self.imported,
            "ready_s": self.started - pieces.began(),
            "requests": len(self.requests),
        }
        if self.answers:
            first, last = self.answers[0][0], self.answers[-1][0]
            later = [each for each in self.answers if each[0] > first + BATCH_S]
            made |= {"first_answer_s": first - pieces.began(), "answers": len(self.answers)}
            made |= _rates(self.answers, last - self.started, "")
            made |= _rates(later, last - first, "steady_") if later else {}
            made["wrong_length"] = sum(not right for _, _, right in self.answers)
        if torch.cuda.is_available():
            made["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return made


def _rates(answers: list[tuple[float, int, bool]], seconds: float, prefix: str) -> dict[str, float]:
    tokens = sum(count for _, count, _ in answers)
    return {f"{prefix}samples_per_s": len(answers) / seconds, f"{prefix}tokens_per_s": tokens / seconds}


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _batches(requests: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]


def plain(bench: Bench, size: int, by_length: bool = False) -> dict[str, Any]:
    """`model.generate` on batches of `size`."""
    model = bench.load()
    requests = bench.requests
    bench.start()
    if by_length:
        sizes = {each["id"]: len(bench.prompt(each)) + 4000 * len(each["images"]) for each in requests}
        requests = sorted(requests, key=lambda each: -sizes[each["id"]])
    batches = list(_batches(requests, size))
    if by_length:  # the widest first, for its memory; then any, so that a part is like the whole
        batches = [batches[0], *random.Random(0).sample(batches[1:], len(batches) - 1)]
    for batch in batches:
        if bench.answered(batch, bench.generate(model, bench.inputs(batch))):
            break
    return {"step_ms": {size: bench.forced.step_ms(size)}}


def present(bench: Bench) -> dict[str, Any]:
    """This package's backend with static batching, otherwise its defaults."""
    from dfkeval import backends
    from dfkeval.backends import transformers as member

    backend = backends.start(member.Config(model=bench.base, batching="static"))
    known = {each["id"]: each for each in bench.requests}
    asked = [
        backends.Request(
            id=each["id"], messages=each["messages"], images=tuple(each["images"]), tools=each["tools"]
        )
        for each in bench.requests
    ]
    bench.start()
    for completion in backend.generate(asked, backends.Sampling(max_new_tokens=bench.limit)):
        if completion.error:
            raise SystemExit(completion.error)
        if bench.answered([known[completion.id]], [completion.n_output_tokens or 0]):
            break
    rows = sorted({rows for rows, _, _ in bench.forced.stamps})
    backend.close()
    return {"step_ms": {each: bench.forced.step_ms(each) for each in rows[-3:]}}


def continuous(bench: Bench) -> dict[str, Any]:
    """transformers' continuous batching on the requests without pictures, or why it does not take them."""
    from transformers import GenerationConfig

    model = bench.load()
    asked = [each for each in bench.requests if not each["images"]]
    ids = [bench.processor.tokenizer.encode(bench.prompt(each), add_special_tokens=False) for each in asked]
    mean = round(sum(each["length"] for each in asked) / len(asked))
    settings = GenerationConfig(max_new_tokens=mean, do_sample=False, eos_token_id=None)
    bench.start()
    try:
        made = model.generate_batch(inputs=ids, generation_config=settings)
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError, NotImplementedError) as error:
        return {"failed": f"refused: {type(error).__name__}: {error}"[:300]}
    counts = [len(each.generated_tokens) for each in made.values()]
    if not any(counts):
        return {"failed": "refused: it returned no tokens"}
    bench.answered([each | {"length": mean} for each in asked[: len(counts)]], counts)
    return {"note": f"rows of text only, {mean} tokens each"}


def steps(bench: Bench) -> dict[str, Any]:
    """Decode steps at several batch sizes beside the time in which memory could move their bytes."""
    from transformers import AutoConfig

    from dfkeval.models.source import model_source

    model = bench.load()
    config = AutoConfig.from_pretrained(model_source(bench.base))
    card = pieces.read_results(bench.work).get("card", {})
    texts = [each for each in bench.requests if not each["images"]]
    longest = max(each["length"] for each in texts)
    bench.start()
    found: dict[int, dict[str, float | None]] = {}
    bench.limit = min(bench.limit, 48)
    for rows in STEP_ROWS[:1] if bench.tiny else STEP_ROWS:
        batch = [each for each in texts * 4 if each["length"] == longest][:rows]
        inputs = bench.inputs(batch)
        length = inputs["input_ids"].shape[1] + bench.limit / 2
        bench.generate(model, inputs)
        bench.forced.stamps.clear()
        bench.generate(model, inputs)
        _wait(bench)
        moved = gpu_workload.decode_bytes(config, len(batch), length)
        bound = 1e3 * moved / card["bandwidth"] if card.get("bandwidth") else None
        found[len(batch)] = {"step_ms": bench.forced.step_ms(len(batch)), "bound_ms": bound}
    return {"steps": found}


def _wait(bench: Bench) -> None:
    import torch

    if bench.cuda:
        torch.cuda.synchronize()


RUN: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "A1": functools.partial(plain, size=1),
    "A4": functools.partial(plain, size=4),
    "B": functools.partial(plain, size=64, by_length=True),
    "C": continuous,
    "D": present,
    "E": continuous_gpu.answers,
    "E-warm": continuous_gpu.answers,
    "E2": continuous_gpu.two_cards,
    "Estep": continuous_gpu.steps,
    "Echeck": continuous_checks.check,
    "step": steps,
}


def plan(tiny: bool, requests: int) -> list[Piece]:
    """Return all pieces, the most important first."""
    shape = ("--requests", str(requests), *(["--tiny"] if tiny else []))
    made = [Piece(name, shape[2:], 150) for name in ("card", "prepare", "questions", "starts")]
    made += [
        Piece(f"generate-{name}", shape, SECONDS[name], "generate")
        for name in ("E", "Estep", "E-warm", "A4", "D", "Echeck", "B", "step", "A1", "C", "E2")
    ]
    made.append(Piece("generate-V", shape, 300, "generate", skip=_no_vllm()))
    return made


def _no_vllm() -> str | None:
    if importlib.util.find_spec("vllm") is None:
        return "vllm cannot be imported here (it needs its own torch and is too large to carry)"
    return "measured by a script of its own"


def work(options: argparse.Namespace) -> None:
    """Be one piece."""
    if options.piece == "generate-Echeck":
        sys.modules["fla"] = None  # type: ignore[assignment]  # its tuning for a small model takes too long
    alone = {
        "card": train_gpu.card,
        "prepare": train_gpu.prepare,
        "questions": generate_starts.questions,
        "starts": generate_starts.starts,
    }
    if options.piece in alone:
        alone[options.piece](options)
        return
    bench = Bench(options)
    name = options.piece.partition("-")[2]
    extra = (continuous_gpu.part if name.startswith("Epart") else RUN[name])(bench)
    pieces.write_result(options.work, options.piece, bench.found() | extra)


def main() -> None:
    """Do what is missing and print the table; with --piece, be one worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="the built-in model, in fp32, on the CPU")
    parser.add_argument("--only", nargs="*", help="pieces to run, in this order; none: only print the table")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing that would end later")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to unpack for the pieces")
    parser.add_argument("--requests", type=int, default=512, help="the first so many of the 512 requests")
    parser.add_argument("--retry", action="store_true", help="run failed pieces again")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.piece:
        faulthandler.dump_traceback_later(max(10, options.seconds - 8))
        work(options)
        return
    if options.wheels:
        pieces.unpack_wheels(options.wheels, options.work / "site")
        sys.path.insert(0, str(options.work / "site"))
    everything = {piece.name: piece for piece in plan(options.tiny, options.requests)}
    names = options.only
    if names is None:
        names = list(everything)
    chosen = [everything[name if name in everything else f"generate-{name}"] for name in names]
    pieces.run_all(Path(__file__).resolve(), options.work, chosen, options.minutes, options.retry)
    text = table(options.work)
    (options.work / "generate.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
