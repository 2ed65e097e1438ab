"""Records -> samples, for many callers at once.

Strategy: callers put their record into a bounded queue and wait for their own future; what waits when the
engine is free goes to it together, in a thread, so that a batch costs one generation; each answer is handed
over as it comes. Promises: at most `queue` requests are held and the rest is refused at once; a caller waits
at most `timeout`; a caller who has given up is not asked for; an engine that fails fails its batch and no
other, and the next batch finds a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from dfkdata.rows.record import Record
from dfkeval.evaluation.grading import grade
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving.limits import Limits, Refusal
from dfkeval.types import Sample


@dataclass(frozen=True)
class _Waiting:
    record: Record
    future: asyncio.Future[Sample]


class Batcher:
    """The queue in front of one predictor. held: requests inside. sizes: rows of each batch so far.

    trouble: why the engine failed last; None once it answered again."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor, self.limits = predictor, limits
        self.held = 0
        self.batches = 0
        self.trouble: str | None = None
        self.queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self.free = asyncio.Semaphore(limits.workers)
        self.pool = ThreadPoolExecutor(max_workers=limits.workers, thread_name_prefix="engine")
        self.running: set[asyncio.Task[None]] = set()

    async def answer(self, record: Record) -> Sample:
        """The judged answer. Raises `Refusal` when the queue is full, the time is up or the engine fails."""
        if self.held >= self.limits.queue:
            raise Refusal(503, "busy", f"{self.held} requests wait already; try again", retry=1)
        waiting = _Waiting(record, asyncio.get_running_loop().create_future())
        self.held += 1
        self.queue.put_nowait(waiting)
        try:
            return await asyncio.wait_for(waiting.future, self.limits.timeout)
        except TimeoutError as error:
            raise Refusal(504, "timeout", f"no answer in {self.limits.timeout:g} s") from error
        finally:
            self.held -= 1

    async def run(self) -> None:
        """Give batches to the engine until cancelled."""
        while True:
            await self.free.acquire()
            batch = [await self.queue.get()]
            while len(batch) < self.limits.batch and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            wanted = [each for each in batch if not each.future.done()]
            task = asyncio.create_task(self._work(wanted))
            self.running.add(task)
            task.add_done_callback(partial(self._done, wanted))

    async def _work(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        self.batches += 1
        loop = asyncio.get_running_loop()
        self.trouble = await loop.run_in_executor(self.pool, self._ask, loop, batch)

    def _ask(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting]) -> str | None:
        """In a thread: ask, judge, and hand each answer over as it comes. Returns why every request failed;
        None where one was answered."""
        faults: list[str] = []
        waiting = {each.record.id: each for each in batch}
        items = {name: self.predictor.item(each.record) for name, each in waiting.items()}
        for completion in self.predictor.answers(items.values()):
            sample = grade([items[completion.id]], {completion.id: completion}, self.predictor.schema)[0]
            faults += [] if sample.answered else sample.problems[:1]
            loop.call_soon_threadsafe(_give, waiting[completion.id].future, sample)
        return faults[0] if len(faults) == len(batch) else None

    def _done(self, batch: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
        """Free the worker; whoever has no answer learns why."""
        self.running.discard(task)
        self.free.release()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.trouble = f"{type(error).__name__}: {error}"
        reason = self.trouble or "the engine gave no answer"
        for each in batch:
            if not each.future.done():
                each.future.set_exception(Refusal(502, "engine_failed", reason))

    def close(self) -> None:
        """Take no more batches and free the model."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.predictor.close()


def _give(future: asyncio.Future[Sample], sample: Sample) -> None:
    if not future.done():
        future.set_result(sample)
