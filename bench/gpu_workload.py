"""The work that every contender of the GPU benchmarks gets: model, rows, requests, and what a card can do.

How it works: random weights of the real Qwen3.5-0.8B shape are built once. Rows are seeded: prompts of 60 to
187 tokens, answers lognormal with a median of 200 tokens, in one data set 70 % with a picture of 252 to 943
tokens. A prompt's length is chosen such that the whole row is a multiple of 128 tokens: batches then have few
distinct shapes for every contender, and kernels are tuned few times. With `tiny` everything is small enough
for the built-in model on a CPU."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATA_SETS = ("text", "pictures")
SIGMA = 0.6
"""Spread of the answers' lengths, of the logarithm."""


@dataclass(frozen=True)
class Scale:
    """rows: of each data set. batch: rows of one optimiser step. micro: data set -> rows of one micro-batch.

    bucket: every row is a multiple of so many tokens. prompt: smallest prompt. answer: median and largest.
    picture: fewest and most tokens of a picture. gate: rows of the batch whose gradients are compared.
    requests, lengths: of the generation benchmark, and how many tokens its answers have."""

    rows: int = 512
    batch: int = 32
    micro: tuple[tuple[str, int], ...] = (("text", 16), ("pictures", 8))
    bucket: int = 128
    prompt: int = 60
    answer: tuple[int, int] = (200, 700)
    picture: tuple[int, int] = (252, 943)
    gate: int = 4
    requests: int = 512
    lengths: tuple[int, ...] = (32, 64, 96, 128, 160, 192, 224, 256)


REAL = Scale()
TINY = Scale(
    rows=24, batch=4, micro=(("text", 2), ("pictures", 2)), bucket=16, prompt=8, answer=(20, 40),
    picture=(4, 12), gate=2, requests=12, lengths=(4, 8),
)  # fmt: skip


def scale(tiny: bool) -> Scale:
    """Return the sizes of the benchmark."""
    return TINY if tiny else REAL


def base_name(work: Path, tiny: bool) -> str:
    """Return what the model is loaded by."""
    return "tiny" if tiny else str(work / "base")


def prepare(work: Path, tiny: bool) -> dict[str, Any]:
    """Build the model, both data sets and the requests; return what they hold."""
    writer = _writer(work, tiny)
    found = {name: writer.data_set(work / "data" / name, name == "pictures") for name in DATA_SETS}
    return found | {"requests": writer.requests(work / "requests")}


def questions(work: Path, tiny: bool) -> dict[str, Any]:
    """Build the model and the requests; return what they hold."""
    return _writer(work, tiny).requests(work / "requests")


def _writer(work: Path, tiny: bool) -> _Writer:
    """Return what writes rows for the model, which is built if it is not there."""
    import torch

    if not tiny and not (work / "base/made.json").is_file():
        from base_model import make_base

        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            make_base(work / "base")
    return _Writer(base_name(work, tiny), scale(tiny))


class _Writer:
    """Writes rows whose lengths in tokens are known."""

    def __init__(self, base: str, sizes: Scale) -> None:
        from dfkeval.models.processor import load_processor
        from dfktrain import Collator

        self.sizes = sizes
        self.collator = Collator(load_processor(base))
        words = single_tokens(self.collator.tokenizer)
        shown = set(self._prompt_ids({"role": "user", "content": "Answer"}))
        free = [word for word in words if self._id(word) not in shown]
        self.markers = dict(zip(sizes.lengths, free, strict=False))
        self.words = [word for word in words if word not in self.markers.values()]

    def _id(self, word: str) -> int:
        return int(self.collator.tokenizer.encode(" " + word, add_special_tokens=False)[0])

    def _prompt_ids(self, turn: dict[str, Any]) -> list[int]:
        """Return the tokens of a request, images as one token each."""
        text = self.collator.processor.apply_chat_template(
            [system_turn(), turn], tools=TOOLS, tokenize=False, add_generation_prompt=True
        )
        return list(self.collator.tokenizer.encode(text, add_special_tokens=False))

    def data_set(self, folder: Path, pictures: bool) -> dict[str, Any]:
        """Write rows.jsonl and return the means of its rows (see `flops`) and the rows of the gate."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        chooser = random.Random(1 if pictures else 0)
        lines, measures, gate = [], [], []
        for index in range(self.sizes.rows):
            row, measure = self._row(folder, index, chooser, pictures and chooser.random() < 0.7)
            lines.append(json.dumps(row))
            measures.append(measure)
            if measure["tokens"] <= 8 * self.sizes.bucket and len(gate) < self.sizes.gate:
                gate.append(row["id"])
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        means = {key: sum(each[key] for each in measures) / len(measures) for key in measures[0]}
        widths = sorted({each["tokens"] for each in measures})
        facts = {"means": means, "widths": widths, "gate": gate}
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts

    def _row(self, folder: Path, index: int, chooser: random.Random, pictured: bool) -> tuple[Any, Any]:
        sizes = self.sizes
        median, largest = sizes.answer
        answer = min(largest, max(median // 12, round(chooser.lognormvariate(0, SIGMA) * median)))
        content: list[dict[str, str]] = []
        images = []
        if pictured:
            content.append({"type": "image"})
            images.append(f"images/{index}.jpg")
            _picture(folder / images[0], chooser, sizes.picture)
        drawn = chooser.randrange(sizes.prompt, sizes.prompt + sizes.bucket)
        tokens = 0
        for words in (drawn, None):
            if words is None:  # now the length is known: fill the row up to a multiple of the bucket
                words = sizes.prompt + (drawn - sizes.prompt + -tokens % sizes.bucket) % sizes.bucket
            asked = {"type": "text", "text": self._text("Read this:", words, chooser)}
            said = {"type": "text", "text": self._text("It says:", answer, chooser)}
            turns = [{"role": "user", "content": [*content, asked]}, {"role": "assistant", "content": [said]}]
            row = {"id": str(index), "messages": turns, "images": images}
            sample = self.collator.encode(row | {"images": [str(folder / path) for path in images]})
            tokens = len(sample)
        if tokens % sizes.bucket:
            raise SystemExit(f"row {index} has {tokens} tokens, which is no multiple of {sizes.bucket}")
        patches = 4 * sum(self.collator.image_tokens(str(folder / path)) for path in images)
        scored = sum(label != -100 for label in sample.labels)
        squares = {"squares": tokens**2, "patch_squares": patches**2}
        return row, {"tokens": tokens, "scored": scored, "patches": patches} | squares

    def _text(self, start: str, words: int, chooser: random.Random) -> str:
        return " ".join([start, *chooser.choices(self.words, k=words)])

    def requests(self, folder: Path) -> dict[str, Any]:
        """Write requests.jsonl: half with a picture, one system prompt with tools, a forced length each.

        The forced length is one of `Scale.lengths`; the prompt says which by its first word."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        chooser, sizes, lines = random.Random(2), self.sizes, []
        for index in range(sizes.requests):
            image = f"images/{index}.jpg" if chooser.random() < 0.5 else None
            if image:
                _picture(folder / image, chooser, sizes.picture)
            length = chooser.choice(sizes.lengths)
            words = self._text("", chooser.randrange(sizes.prompt, 200 * sizes.prompt // 60), chooser)
            text = f"Answer {self.markers[length]}{words}"
            turn = {
                "role": "user",
                "content": [*([{"type": "image"}] if image else []), {"type": "text", "text": text}],
            }
            if self._prompt_ids(turn).count(self._id(self.markers[length])) != 1:
                raise SystemExit(f"request {index}: its marker {self.markers[length]!r} stands in it twice")
            images = [str(folder / image)] if image else []
            row = {"id": str(index), "messages": [system_turn(), turn], "images": images, "tools": TOOLS}
            lines.append(json.dumps(row | {"length": length}))
        (folder / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        facts: dict[str, Any] = {
            "length_ids": {str(self._id(word)): length for length, word in self.markers.items()},
            "end": self.collator.tokenizer.eos_token_id,
        }
        (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts


SHAPES = (
    (16384, 1024, 3584), (16384, 3584, 1024), (16384, 1024, 2048), (4096, 1024, 248320), (16384, 1024, 16),
    (32, 1024, 3584), (32, 1024, 248320),
)  # fmt: skip
"""Matrix products of the 0.8B shape, (rows, inner, outer): MLP, attention, head, adapter, decode."""

SYSTEM = " ".join(["You read posts and pictures and answer in the form that is asked for."] * 12)
TOOLS = [
    {"type": "function", "function": {
     "name": f"emit_{name}", "description": f"Report the {name} of the post.",
     "parameters": {"type": "object", "properties": {
         part: {"type": "array", "items": {"type": "string"}, "description": f"All {part} that are seen."}
         for part in ("subjects", "actions", "places", "colours")}, "required": ["subjects"]}}}
    for name in ("caption", "label")
]  # fmt: skip


def system_turn() -> dict[str, Any]:
    """Return the system turn that all requests share."""
    return {"role": "system", "content": [{"type": "text", "text": SYSTEM}]}


def single_tokens(tokenizer: Any) -> list[str]:
    """Return plain words that are one token each behind a blank."""
    found = []
    for token in sorted(tokenizer.get_vocab()):
        word = token.removeprefix("Ġ")
        if token != word and word.isascii() and word.isalpha() and len(word) > 2:
            found.append(word)
    return [word for word in found if len(tokenizer.encode(" " + word, add_special_tokens=False)) == 1]


def _picture(path: Path, chooser: random.Random, tokens: tuple[int, int]) -> None:
    """Write a JPEG of soft random colours whose size gives about `tokens` tokens (32 x 32 pixels each)."""
    from PIL import Image

    if path.is_file():
        chooser.randrange(*tokens), chooser.uniform(0.6, 1.7), chooser.randrange(1 << 30)
        return
    area, slim = chooser.randrange(*tokens) * 1024, chooser.uniform(0.6, 1.7)
    width, height = round((area * slim) ** 0.5), round((area / slim) ** 0.5)
    noise = random.Random(chooser.randrange(1 << 30)).randbytes(3 * 24 * 18)
    Image.frombytes("RGB", (24, 18), noise).resize((width, height), Image.Resampling.BICUBIC).save(
        path, quality=90
    )


@dataclass(frozen=True)
class Card:
    """What was measured on the card: bf16 matrix product in FLOP/s, copy in bytes/s (read plus written)."""

    name: str
    flops: float
    bandwidth: float
    shapes: dict[str, float]


def measure_card() -> dict[str, Any]:
    """Measure the ceilings of this card on random data, and the matrix rate at this model's own shapes."""
    import torch

    if not torch.cuda.is_available():
        left = torch.randn(512, 512)
        seconds = _fastest(lambda: left @ left, cuda=False)
        return asdict(Card("CPU", 2 * 512**3 / seconds, 1e10, {}))
    made = {"device": "cuda", "dtype": torch.bfloat16}
    big = torch.randn(8192, 8192, **made)
    rate = 2 * 8192**3 / _fastest(lambda: big @ big)
    bandwidth = _copy_rate()
    shapes = {}
    for rows, inner, outer in SHAPES:
        left, right = torch.randn(rows, inner, **made), torch.randn(outer, inner, **made)
        shapes[f"{rows} x {inner} x {outer}"] = (
            2 * rows * inner * outer / _fastest(lambda a=left, b=right: a @ b.T)
        )
    return asdict(Card(torch.cuda.get_device_name(), rate, bandwidth, shapes))


def _copy_rate() -> float:
    """Return the bytes a second that a copy of 4 GiB on the card reads and writes."""
    import torch

    source = torch.empty(2**31, device="cuda", dtype=torch.bfloat16).normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source))


def _fastest(call: Any, cuda: bool = True) -> float:
    """Return the median seconds of ten calls after three."""
    import time

    import torch

    seconds = []
    for _ in range(13):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[3:])[5]


def training_flops(config: Any, means: dict[str, float], rank: int = 16) -> float:
    """Return the floating-point operations that training on a row of these means needs at least.

    Frozen weights cost two products a token (forward, and the gradient of their input), adapters three, the
    head only at scored positions. Attention and the gated delta rule count once forward and 2.5 times
    backward; the rule counts in its recurrent form. Nothing is recomputed."""
    text, vision = config.text_config, config.vision_config
    hidden, width = text.hidden_size, text.intermediate_size
    full = sum(kind == "full_attention" for kind in text.layer_types)
    linear = text.num_hidden_layers - full
    query = text.num_attention_heads * text.head_dim
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    values = text.linear_num_value_heads * text.linear_value_head_dim
    shapes = [(hidden, width)] * 3 * text.num_hidden_layers
    shapes += [
        (hidden, 2 * query),
        (hidden, 2 * text.num_key_value_heads * text.head_dim),
        (query, hidden),
    ] * full
    shapes += [
        (hidden, 2 * keys + 2 * values),
        (hidden, 2 * text.linear_num_value_heads),
        (values, hidden),
    ] * linear
    wide = vision.hidden_size
    tower = [(wide, 4 * wide), (wide, 2 * vision.intermediate_size)] * vision.depth
    merged = 4 * wide
    merger = [(merged, merged), (merged, vision.out_hidden_size)]

    def products(pairs: list[tuple[int, int]]) -> float:
        return sum(4 * a * b + 6 * rank * (a + b) for a, b in pairs)

    body = means["tokens"] * products(shapes)
    attention = 3.5 * 2 * means["squares"] * query * full
    rule = 3.5 * 6 * means["tokens"] * linear * values * text.linear_key_head_dim
    head = 4 * means["scored"] * hidden * text.vocab_size
    sight = means["patches"] * products(tower) + means["patches"] / 4 * products(merger)
    sight += 3.5 * 4 * means["patch_squares"] * wide * vision.depth
    return float(body + attention + rule + head + sight)


def decode_bytes(config: Any, rows: int, length: float) -> float:
    """Return the bytes that one decode step must move for `rows` answers with `length` tokens behind them.

    Weights in bf16 once; per row the recurrent states in fp32 read and written, the window of the convolution
    likewise in bf16, keys and values in bf16 read."""
    text = config.text_config
    hidden = text.hidden_size
    full = sum(kind == "full_attention" for kind in text.layer_types)
    linear = text.num_hidden_layers - full
    query = text.num_attention_heads * text.head_dim
    key_value = text.num_key_value_heads * text.head_dim
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    values = text.linear_num_value_heads * text.linear_value_head_dim
    weights = 3 * hidden * text.intermediate_size * text.num_hidden_layers
    weights += full * hidden * (3 * query + 2 * key_value)
    weights += linear * hidden * (2 * keys + 3 * values + 2 * text.linear_num_value_heads)
    weights += text.vocab_size * hidden
    state = 2 * 4 * linear * values * text.linear_key_head_dim
    window = 2 * 2 * linear * (2 * keys + values) * text.linear_conv_kernel_dim
    cache = 2 * 2 * full * key_value * length
    return float(2 * weights + rows * (state + window + cache))
