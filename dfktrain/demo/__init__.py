"""The whole way on drawn data, from raw rows to a report, with the built-in model on a CPU.

`words`, `posts` and `captions` make the raw data; `run` runs all steps. Every step is written as a
configuration file that the commands take, so that each can be run again by hand."""

from __future__ import annotations

from pathlib import Path


def demo(out: Path, minutes: int = 3) -> None:
    """Run all steps of the demo into a folder and print the before/after table; see `run.demo`."""
    from dfktrain.demo import run

    run.demo(out, minutes)
