"""Answer many callers in batches.

How it works: callers put their record into a bounded queue and wait for their own future. What waits when the
backend is free goes to it together, in a thread, so that a batch costs one generation; each answer is handed
over as it comes.

Guarantees:
- At most `queue` requests are held; the others are refused at once.
- A caller waits at most `timeout` seconds; the question of a caller who has given up is not asked.
- A backend that fails loses its batch and no other, and the next batch finds a worker."""

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
    """The queue in front of one predictor.

    Attributes:
        held: Requests that wait or are being answered.
        batches: Batches so far.
        trouble: Why the backend failed last; None once it has answered again.
    """

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
        """Return the graded answer. Raises `Refusal` if the queue is full, the time is up or the backend
        fails."""
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
        """Give batches to the backend until cancelled."""
        while True:
            await self.free.acquire()
            batch = [await self.queue.get()]
            while len(batch) < self.limits.batch and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            waiting = [call for call in batch if not call.future.done()]
            task = asyncio.create_task(self._work(waiting))
            self.running.add(task)
            task.add_done_callback(partial(self._done, waiting))

    async def _work(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        self.batches += 1
        loop = asyncio.get_running_loop()
        self.trouble = await loop.run_in_executor(self.pool, self._ask, loop, batch)

    def _ask(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting]) -> str | None:
        """Ask and grade in a thread, and hand each answer over as it comes.

        Returns why every request failed; None if one was answered."""
        faults: list[str] = []
        waiting = {call.record.id: call for call in batch}
        items = {name: self.predictor.item(call.record) for name, call in waiting.items()}
        for completion in self.predictor.answers(items.values()):
            sample = grade([items[completion.id]], {completion.id: completion}, self.predictor.schema)[0]
            faults += [] if sample.answered else sample.problems[:1]
            loop.call_soon_threadsafe(_give, waiting[completion.id].future, sample)
        return faults[0] if len(faults) == len(batch) else None

    def _done(self, batch: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
        """Free the worker, and tell every caller without an answer why there is none."""
        self.running.discard(task)
        self.free.release()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.trouble = f"{type(error).__name__}: {error}"
        reason = self.trouble or "the engine gave no answer"
        for call in batch:
            if not call.future.done():
                call.future.set_exception(Refusal(502, "engine_failed", reason))

    def close(self) -> None:
        """Stop taking batches and free the model."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.predictor.close()


def _give(future: asyncio.Future[Sample], sample: Sample) -> None:
    if not future.done():
        future.set_result(sample)
