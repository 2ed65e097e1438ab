"""The service under load: answers a second, times, errors, memory over many requests, and what its end loses.

    python bench/service_load.py [--engine fake|tiny] [--requests 2000] [--memory 10000]
    python bench/service_load.py --serve 8080          only the service, for a fuzzer or another client:
    schemathesis run http://127.0.0.1:8080/openapi.json -n 5000 --exclude-checks positive_data_acceptance

A real process serves over sockets; the callers are in this one, each with a connection of its own that it keeps. The
fake engine sleeps 20 ms a batch (--seconds), so that what is measured is the service; `tiny` is the built-in model with
answers of 8 tokens. Both processes share the machine's cores."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dfkeval import Predictor
from dfkeval.backends import Capabilities
from dfkeval.inference.serving import server
from dfkeval.inference.serving.app import application
from dfkeval.inference.serving.limits import Limits
from dfkeval.types import Completion, Request, Sampling

BODY = json.dumps({"fields": {"title": "Judul berita", "text": "Isi berita yang singkat. " * 20}}).encode()
ASK = (
    b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)


class Fake:
    """Sleeps, and says one valid answer."""

    capabilities = Capabilities()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.info: dict[str, Any] = {"kind": "fake"}

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        asked = list(requests)
        time.sleep(self.seconds)
        for request in asked:
            yield Completion(id=request.id, text="Label: netral\n\nAnalisis: jelas", n_output_tokens=5)

    def close(self) -> None: ...


def serve(engine: str, port: int, seconds: float) -> None:
    if engine == "fake":
        predictor = Predictor(schema="dfk_label", backend=Fake(seconds))
    else:
        import torch

        from dfkeval.backends.transformers import Transformers
        from dfkeval.models import loader

        torch.set_num_threads(1)
        backend = Transformers(loader.load("tiny", dtype="float32", device="cpu"))
        predictor = Predictor(schema="dfk_label", backend=backend, sampling=Sampling(max_new_tokens=8))
    limits = Limits(queue=256)
    server.run(application(predictor, limits), limits, "127.0.0.1", port)


class Caller:
    """One connection of HTTP/1.1 that is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self) -> int:
        """Send one question and return the status. Raises `OSError` or `EOFError` if the connection ends."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self.reader is not None
        self.writer.write(ASK)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        named = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await self.reader.readexactly(int(named[b"content-length"]))
        if named.get(b"connection") == b"close":
            self.close()
        return int(head.split()[1])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None


async def load(port: int, callers: int, requests: int) -> dict[str, Any]:
    """Ask `requests` questions from so many callers."""
    times: list[float] = []
    statuses: Counter[int | str] = Counter()
    left = iter(range(requests))

    async def work() -> None:
        caller = Caller(port)
        for _ in left:
            began = time.perf_counter()
            try:
                statuses[await caller.ask()] += 1
            except (OSError, EOFError) as error:
                statuses[type(error).__name__] += 1
                caller.close()
            times.append(time.perf_counter() - began)
        caller.close()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    seconds = time.perf_counter() - began
    ordered = sorted(times)
    shares = {
        f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1000
        for share in (50, 95, 99)
    }
    return {
        "callers": callers,
        "per_second": requests / seconds,
        "errors": 1 - statuses[200] / requests,
        **shares,
    }


async def ended(port: int, process: subprocess.Popen[bytes], callers: int) -> Counter[str]:
    """Send SIGTERM under load; count what was asked before it and not answered, and what came after it."""
    told: Counter[str] = Counter()
    signalled = asyncio.Event()

    async def work() -> None:
        caller = Caller(port)
        while True:
            before = not signalled.is_set()
            try:
                status = await caller.ask()
            except (OSError, EOFError):
                told["lost, sent before the signal" if before else "not taken, sent after it"] += 1
                return
            told[f"answered with {status}"] += 1

    tasks = [asyncio.create_task(work()) for _ in range(callers)]
    await asyncio.sleep(2)
    process.send_signal(signal.SIGTERM)
    signalled.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    told[f"exit status {await asyncio.to_thread(process.wait, 60)}"] += 1
    return told


def resident(pid: int) -> float:
    """Return the memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def up(port: int) -> None:
    for _ in range(600):
        caller = Caller(port)
        try:
            if await caller.ask() == 200:
                return
        except (OSError, EOFError):
            await asyncio.sleep(0.2)
        finally:
            caller.close()
    raise SystemExit("the service did not start")


async def measured(given: argparse.Namespace, process: subprocess.Popen[bytes]) -> None:
    await up(given.port)
    print("| callers | answers/s | p50 ms | p95 ms | p99 ms | errors |\n|---|---|---|---|---|---|")
    for callers in (1, 8, 64):
        row = await load(given.port, callers, given.requests if callers > 1 else given.requests // 5)
        print(
            f"| {callers} | {row['per_second']:.0f} | {row['p50']:.1f} | {row['p95']:.1f} | {row['p99']:.1f} "
            f"| {row['errors']:.2%} |"
        )
    memory = [resident(process.pid)]
    for _ in range(5):
        await load(given.port, 64, given.memory // 5)
        memory.append(resident(process.pid))
    print(f"\nmemory over {given.memory} requests, MB: {', '.join(f'{each:.1f}' for each in memory)}")
    print(f"ended by SIGTERM under 64 callers: {dict(await ended(given.port, process, 64))}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("fake", "tiny"), default="fake")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--memory", type=int, default=10_000)
    parser.add_argument("--port", type=int, default=18_081)
    parser.add_argument("--seconds", type=float, default=0.02, help="Of a batch of the fake engine.")
    parser.add_argument("--serve", type=int, metavar="PORT", help="Only serve.")
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.engine, given.serve, given.seconds)
        return
    words = [sys.executable, __file__, "--engine", given.engine, "--serve", str(given.port)]
    process = subprocess.Popen(words)
    try:
        asyncio.run(measured(given, process))
    finally:
        process.kill()


if __name__ == "__main__":
    main()
