"""What batching gives the service and what label probabilities cost, on the built-in model in one run.

    python bench/serving.py [--requests 96] [--callers 16]

Requests go through the application itself (ASGI, no sockets), side by side: batches of 1 and of 8 rows at
most, each with and without confidences; answers of 24 tokens at most. The tiny model knows no labels, so four
classes are put behind a word that it says anyway: what is measured is the work, not the model."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
from msgspec.structs import replace

from dfkeval import Predictor
from dfkeval.backends import Capabilities
from dfkeval.backends.transformers import Transformers
from dfkeval.inference.serving.app import application
from dfkeval.inference.serving.limits import Limits
from dfkeval.models import loader
from dfkeval.types import Completion, LabelSlot, Request, Sampling

SAMPLING = Sampling(max_new_tokens=24)


class Marked:
    """The engine, asked for four classes behind the first word that the model says, where `sure`."""

    capabilities = Capabilities()

    def __init__(self, engine: Transformers, sure: bool) -> None:
        self.engine, self.sure, self.info, self.batches = engine, sure, engine.info, 0

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        self.batches += 1
        slot = LabelSlot(marker="<tool_call>", written={name: name for name in "abcd"}, closing=".")
        asked = [replace(each, slot=slot if self.sure else None) for each in requests]
        yield from self.engine.generate(asked, sampling)

    def close(self) -> None: ...


async def measured(engine: Marked, batch: int, requests: int, callers: int) -> dict[str, Any]:
    """Requests a second, and how many had probabilities."""
    app = application(
        Predictor(schema="dfk_label", backend=engine, sampling=SAMPLING), Limits(batch=batch, queue=callers)
    )
    gate, found = asyncio.Semaphore(callers), []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service", timeout=300
        ) as client,
    ):

        async def ask(index: int) -> None:
            async with gate:
                body = {"fields": {"title": f"Judul {index}", "text": "Isi"}}
                found.append((await client.post("/predict", json=body)).json())

        started = time.perf_counter()
        await asyncio.gather(*(ask(index) for index in range(requests)))
        seconds = time.perf_counter() - started
    sure = sum(each["label_probs"] is not None for each in found)
    return {
        "batch": batch,
        "sure": sure,
        "batches": engine.batches,
        "per_second": round(requests / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--callers", type=int, default=16)
    given = parser.parse_args()
    engine = Transformers(loader.load("tiny", dtype="float32", device="cpu"))
    asyncio.run(measured(Marked(engine, True), 8, 8, 8))  # warm up
    rows = [
        asyncio.run(measured(Marked(engine, sure), batch, given.requests, given.callers))
        for sure in (False, True)
        for batch in (1, 8)
    ]
    base = rows[0]["per_second"]
    print("| batch at most | with probabilities | batches | requests/s | ratio |\n|---|---|---|---|---|")
    for row in rows:
        ratio = row["per_second"] / base
        print(f"| {row['batch']} | {row['sure']} | {row['batches']} | {row['per_second']} | {ratio:.2f} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
