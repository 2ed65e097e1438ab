"""Have the shards of a conversion done, by this process or by several others.

How it works: each worker is a process that asks for nothing: it is told the number of a shard, converts it and says
so. One worker is this process itself.

Guarantees:
    - A worker ends when the process that started it is gone, however it went.
    - Shards that are done stay, whatever happens to the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple, Self

from dfkdata.common import limits, media_roots, plugins
from dfkdata.common.errors import ConfigError, DfkError
from dfkdata.common.progress import Progress
from dfkdata.conversion import job as jobs
from dfkdata.conversion.job import ConversionJob
from dfkdata.conversion.options import ConvertOptions
from dfkdata.conversion.shard_plan import Parts, Shards
from dfkdata.conversion.shard_run import ReadColumns, ShardRun

_WAY_OUT = "shards that are done stay; the same command goes on"


class _Order(NamedTuple):
    """What a worker needs to know before its first shard."""

    input: Any
    out: Path
    options: ConvertOptions
    shards: Shards
    limits: limits.FileLimits
    media_roots: tuple[str, ...]
    trusted: tuple[str, ...]


class _Worker(NamedTuple):
    process: SpawnProcess
    talk: Any


class ShardPool:
    """Convert shards; as a context manager it ends its processes."""

    def __init__(self, job: ConversionJob, parts: Parts, shards: Shards) -> None:
        self._job, self._parts, self._shards = job, parts, shards
        self._workers: list[_Worker] = []
        self._own: ShardRun | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.talk.close()

    def convert_all(self) -> None:
        """Convert all shards that are not done.

        Raises:
            ConfigError: A worker died; the message says at which shard.
        """
        numbers = range(len(self._shards.plan.pieces))
        waiting = [number for number in numbers if not self._shards.done(number)]
        progress = _RowCount(self._job.options, self._shards, {*numbers}.difference(waiting))
        count = min(self._job.options.workers or 1, len(waiting))
        if count > 1:
            self._start(count)
            self._share(waiting, progress)
            return
        for number in waiting:
            self.convert(number, rows=partial(progress.at, number))
            progress.done(number)

    def convert(
        self, number: int, known: ReadColumns | None = None, rows: Callable[[int], None] | None = None
    ) -> None:
        """Convert one shard in this process; `rows` is called with the number of rows so far."""
        if self._own is None:
            self._own = ShardRun(self._job, self._parts, self._shards)
        self._own.progress = rows
        self._own.convert(number, known)

    def _start(self, count: int) -> None:
        """Start so many workers."""
        quiet = self._job.options.model_copy(update={"progress": None})
        (source, _), *_ = self._job.inputs
        order = _Order(
            source,
            self._job.folder.final,
            quiet,
            self._shards,
            limits.current(),
            media_roots.allowed(),
            plugins.trusted(),
        )
        context = multiprocessing.get_context("spawn")
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, order), daemon=True)
            process.start()
            there.close()
            self._workers.append(_Worker(process, here))

    def _share(self, numbers: Sequence[int], progress: _RowCount) -> None:
        """Have the workers convert shards, and raise what the first of them raises that fails."""
        waiting = deque(numbers)
        busy: dict[_Worker, int] = {}
        failed: dict[int, Exception] = {}
        idle = [*self._workers]
        while busy or (waiting and not failed):
            while idle and waiting and not failed:
                worker = idle.pop()
                busy[worker] = waiting.popleft()
                with contextlib.suppress(BrokenPipeError):  # it is heard of when it is listened to
                    worker.talk.send(busy[worker])
            ready = {id(talk) for talk in connection.wait([worker.talk for worker in busy])}
            for worker, number in [*busy.items()]:
                if id(worker.talk) not in ready:
                    continue
                answer = self._answer(worker, number)
                if isinstance(answer, int):
                    progress.at(number, answer)
                    continue
                del busy[worker]
                if answer is None:
                    idle.append(worker)
                    progress.done(number)
                else:
                    failed[number] = answer
        if failed:
            raise failed[min(failed)]

    def _answer(self, worker: _Worker, number: int) -> int | Exception | None:
        """Return what a worker says: rows so far, an error, or None if the shard is done."""
        try:
            answer: int | Exception | None = worker.talk.recv()
        except EOFError:
            worker.process.join()
            code = worker.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            name = self._shards.name(number, self._parts)
            hint = "if memory is short, take fewer workers"
            script = "a script that converts needs `if __name__ == '__main__':` around its call"
            return ConfigError(f"{name}: the process that converts it {how}; {_WAY_OUT}; {hint}; {script}")
        if isinstance(answer, Exception):
            answer.add_note(_WAY_OUT)
        return answer


class _RowCount:
    """Tell how many rows are done, over all workers and over the run that was stopped before."""

    def __init__(self, options: ConvertOptions, shards: Shards, finished: Collection[int]) -> None:
        self._tell, self._pieces = options.progress, shards.plan.pieces
        self._finished = sum(self._pieces[number].rows or 0 for number in finished)
        self._begun: dict[int, int] = {}
        counted = [piece.rows for piece in self._pieces if piece.rows is not None]
        if isinstance(self._tell, Progress) and len(counted) == len(self._pieces):
            self._tell.expect(sum(counted), before=self._finished)

    def at(self, number: int, rows: int) -> None:
        """Hear how many rows of a shard are done."""
        self._begun[number] = rows
        if self._tell is not None:
            self._tell(self._finished + sum(self._begun.values()))

    def done(self, number: int) -> None:
        """Hear that a shard is done."""
        rows = self._begun.pop(number, 0)
        self._finished += self._pieces[number].rows or rows


def _work(talk: Any, order: _Order) -> None:
    """Convert shards until nobody asks for more: the life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that started this one, too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    media_roots.allow(order.media_roots)
    plugins.trust(order.trusted)
    limits.change(f"{name}={value}" for name, value in asdict(order.limits).items())
    try:
        job = jobs.resolve(order.input, order.out, order.options)
        run = ShardRun(job, job.parts(), order.shards)
        run.progress = talk.send
        while True:
            run.convert(talk.recv())
            talk.send(None)
    except (DfkError, OSError) as error:
        talk.send(error)
    except EOFError:
        return


def _end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
