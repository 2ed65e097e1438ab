"""Write TensorBoard event files: one scalar a value, and the Markdown report as a text.

The tensorboard package alone writes them, so that no torch is needed. Files of the same run from before are replaced;
`tensorboard --logdir runs` then shows each run as a line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError, missing_package
from dfkeval.runs import directory
from dfkeval.runs.run import Run

PACKAGE = "tensorboard"


def send(run: Run, step: int = 0, folder: Path | None = None) -> str:
    """Write the run's numbers into `folder`/NAME, else into its own folder `tensorboard`, and return where.

    Raises:
        ConfigError: tensorboard is not installed, or nothing can be written there.
    """
    from dfkeval.reports.trackers import numbers

    try:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ModuleNotFoundError as error:
        raise missing_package("tracker 'tensorboard'", PACKAGE, "trackers") from error
    place = run.folder / "tensorboard" if folder is None else folder / run.name
    if folder is None and place.is_dir():
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
    try:
        writer = EventFileWriter(str(place))
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror}); give another --folder") from error
    try:
        for event in _events(dict(numbers(run)), _report(run), step):
            writer.add_event(event)
    finally:
        writer.close()
    return str(place)


def _events(values: dict[str, float], report: str, step: int) -> Iterator[Any]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.summary import text_pb

    now = time.time()
    for name, value in values.items():
        tag = name.replace(".", "/", 1)
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        yield Event(wall_time=now, step=step, summary=summary)
    if report:
        yield Event(wall_time=now, step=step, summary=text_pb("report", report))


def _report(run: Run) -> str:
    """Return the report's tables without its examples of answers, which stay on this machine."""
    path = run.folder / directory.REPORT_MD
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text.partition("\n## Answers that are not valid")[0]
