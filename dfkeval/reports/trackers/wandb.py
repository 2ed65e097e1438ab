"""Log a run to Weights & Biases: its configuration, and every value as summary and history.

The project is $WANDB_PROJECT, else "dfk"; $WANDB_MODE=offline keeps everything on this machine. A run that is sent
again continues the same one there. Of the configuration, names and numbers are sent; an API key in it is only the name
of an environment variable."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path

from dfkdata.common.errors import missing_package
from dfkeval.runs.run import Run

PACKAGE = "wandb"


def send(run: Run, step: int = 0, folder: Path | None = None) -> str:
    """Log the run and return its address; `folder` holds wandb's own files, by default the run's folder does.

    Raises:
        ConfigError: wandb is not installed.
    """
    from dfkeval.reports.trackers import numbers

    try:
        wandb = importlib.import_module("wandb")
    except ModuleNotFoundError as error:
        raise missing_package("tracker 'wandb'", PACKAGE, "trackers") from error
    values = dict(numbers(run))
    session = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "dfk"),
        name=run.name,
        id=hashlib.sha256(str(run.folder.resolve()).encode()).hexdigest()[:16],
        resume="allow",
        job_type="evaluation",
        dir=str(folder or run.folder),
        config=run.config.record() | {"schema": run.schema.name},
    )
    try:
        session.log(values, step=step)
        session.summary.update(values | {"n": run.summary["n"]})
    finally:
        session.finish()
    return str(getattr(session, "url", None) or f"wandb run {run.name}")
