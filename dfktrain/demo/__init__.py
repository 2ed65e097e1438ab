"""The demo: sample data -> rows -> adapter -> answers -> scores and a report, with the built-in model on a
CPU.

`words` and `posts`, `captions` make the raw data; `run` goes the whole way. Every step is written down as a
configuration file that the commands take, so that each can be run again by hand."""

from __future__ import annotations

from pathlib import Path


def demo(out: Path, minutes: int = 3) -> None:
    """Go the whole way into the folder `out` and print the before/after table. See `run.demo`."""
    from dfktrain.demo import run

    run.demo(out, minutes)
