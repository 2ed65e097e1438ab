"""Answer many callers in batches.

How it works: callers put their record into a bounded queue and wait for their own future. What waits when the
backend is free goes to it together, in a thread, so that a batch costs one generation; each answer is handed
over as it comes. Every question carries the moment at which its caller stops waiting, and the backend gives it up then.

Guarantees:
- At most `queue` requests are held; the others are refused at once. A batch has at most `batch` requests and
  `batch_pixels` pixels.
- A caller waits at most `timeout` seconds; the question of a caller who has given up is not asked, and one that is
  being answered ends.
- A backend that fails loses its batch and no other, and the next batch finds a worker. A question that makes the
  backend stumble is asked alone, so that its neighbours are answered.
- A backend that does not come back is told apart from one that is busy (`stuck`), and nothing more waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from msgspec import structs

from dfkdata.common.errors import DfkError
from dfkdata.rows.record import Record
from dfkeval.evaluation.grading import EvalItem, grade
from dfkeval.inference.predictor import Predictor
from dfkeval.inference.serving.limits import Limits, Refusal
from dfkeval.types import Completion, Sample

#: Seconds that a backend has beyond a caller's time before it counts as stuck.
GRACE = 10.0


@dataclass(frozen=True, eq=False)
class _Waiting:
    record: Record
    pixels: int
    deadline: float
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
        self.left: _Waiting | None = None
        self.free = asyncio.Semaphore(limits.workers)
        self.running: set[asyncio.Task[None]] = set()
        self.heard: dict[int, float] = {}
        self.pool = ThreadPoolExecutor(max_workers=limits.workers, thread_name_prefix="engine")

    @property
    def stuck(self) -> str | None:
        """Return for how long the backend has said nothing, if no worker will come back in a caller's time."""
        now, most = time.monotonic(), self.limits.timeout + GRACE
        silent = [now - heard for heard in list(self.heard.values())]
        if len(silent) < self.limits.workers or min(silent) <= most:
            return None
        return f"the engine has given no answer for {min(silent):.0f} s"

    async def answer(self, record: Record, pixels: int = 0) -> Sample:
        """Return the graded answer. Raises `Refusal` if the queue is full, the time is up or the backend
        fails."""
        if (stuck := self.stuck) is not None:
            raise Refusal(503, "stuck", f"{stuck}; try again later", retry=10)
        if self.held >= self.limits.queue:
            raise Refusal(503, "busy", f"{self.held} requests wait already; try again", retry=1)
        deadline = time.monotonic() + self.limits.timeout
        waiting = _Waiting(record, pixels, deadline, asyncio.get_running_loop().create_future())
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
            batch = await self._gathered()
            waiting = [call for call in batch if not call.future.done()]
            task = asyncio.create_task(self._work(waiting))
            self.running.add(task)
            task.add_done_callback(partial(self._done, waiting))

    async def _gathered(self) -> list[_Waiting]:
        """Wait for a request, and take what waits with it and fits into its batch."""
        first = self.left if self.left is not None else await self.queue.get()
        self.left, batch, pixels = None, [first], first.pixels
        while len(batch) < self.limits.batch and not self.queue.empty():
            call = self.queue.get_nowait()
            pixels += call.pixels
            if pixels > self.limits.batch_pixels:
                self.left = call
                break
            batch.append(call)
        return batch

    async def _work(self, batch: Sequence[_Waiting]) -> None:
        """Ask a batch; if a question makes the backend stumble, ask what is left of it one by one."""
        if not batch:
            return
        result = await self._asked(batch)
        if isinstance(result, BaseException):
            if len(batch) == 1 or isinstance(result, DfkError):  # the question alone, or the engine itself
                raise result
            left = [call for call in batch if not call.future.done()]
            results = [await self._alone(call) for call in left]
            result = results[0] if results and all(results) else None
        self.trouble = result

    async def _alone(self, call: _Waiting) -> str | None:
        """Ask one question; returns as `_answers`, also why the backend stumbled over it."""
        result = await self._asked([call])
        if isinstance(result, DfkError):
            raise result
        if isinstance(result, BaseException):
            result = f"{type(result).__name__}: {result}"
            _refuse(call.future, _failed(result))
        return result

    async def _asked(self, batch: Sequence[_Waiting]) -> str | BaseException | None:
        """Ask in a thread; return what `_answers` returns, or raises."""
        self.batches += 1
        number, loop = self.batches, asyncio.get_running_loop()
        self.heard[number] = time.monotonic()
        asking = loop.run_in_executor(self.pool, self._answers, loop, batch, number)
        (result,) = await asyncio.gather(asking, return_exceptions=True)
        del self.heard[number]
        return result

    def _answers(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], number: int) -> str | None:
        """Ask and grade, and hand each answer over as it comes.

        Returns why every request failed by the backend's fault; None if one was answered or refused."""
        faults: list[str] = []
        waiting = {call.record.id: call for call in batch}
        items = {name: self._item(call) for name, call in waiting.items()}
        for completion in self.predictor.answers(items.values()):
            self.heard[number] = time.monotonic()
            call = waiting[completion.id]
            if completion.refused:
                refusal = Refusal(
                    422, "cannot_be_asked", completion.error or "the model cannot be asked this"
                )
                loop.call_soon_threadsafe(_refuse, call.future, refusal)
                continue
            sample = self._graded(items[completion.id], completion)
            faults += [] if sample.answered else sample.problems[:1]
            loop.call_soon_threadsafe(_give, call.future, sample)
        return faults[0] if len(faults) == len(batch) else None

    def _item(self, call: _Waiting) -> EvalItem:
        item = self.predictor.item(call.record)
        request = structs.replace(item.request, deadline=call.deadline, max_prompt_tokens=self.limits.tokens)
        return replace(item, request=request)

    def _graded(self, item: EvalItem, completion: Completion) -> Sample:
        return grade([item], {completion.id: completion}, self.predictor.schema)[0]

    def _done(self, batch: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
        """Free the worker, and tell every caller without an answer why there is none."""
        self.running.discard(task)
        self.free.release()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.trouble = f"{type(error).__name__}: {error}"
        reason = self.trouble or "the engine gave no answer"
        for call in batch:
            _refuse(call.future, _failed(reason))

    def close(self) -> None:
        """Free the model, unless the backend is still busy with it."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if not self.running:
            self.predictor.close()


def _failed(reason: str) -> Refusal:
    return Refusal(502, "engine_failed", reason)


def _give(future: asyncio.Future[Sample], sample: Sample) -> None:
    if not future.done():
        future.set_result(sample)


def _refuse(future: asyncio.Future[Sample], refusal: Refusal) -> None:
    if not future.done():
        future.set_exception(refusal)
