"""`dfktrain check`: what a run would do, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkdata.cli.options import Redact
from dfkdata.common.console import examples, write
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.progress import Progress
from dfktrain.cli._common import (
    Changes,
    ConfigPath,
    OverrideFiles,
    load_config,
    quiet,
    require_packages,
)

if TYPE_CHECKING:
    from dfktrain.config.run import TrainConfig
    from dfktrain.training.preflight import Preflight

EXAMPLES = examples(
    "dfktrain check train.yaml",
    "dfktrain check train.yaml --config-only --set stages.0.batch_size=4",
)


def check_command(
    config: ConfigPath,
    config_only: Annotated[
        bool, typer.Option(help="Stop after the configuration is read; open no data.")
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(help="HTML file to write: the page of dfkdata card, with rows as the model sees them."),
    ] = None,
    all_rows: Annotated[
        bool,
        typer.Option(
            help="Tokenise every row; of files over 10,000 rows some stand for the others otherwise."
        ),
    ] = False,
    redact: Redact = False,
    set_: Changes = None,
    override: OverrideFiles = None,
) -> None:
    """Print what a run would do, without training: rows, tokens, mask, steps, memory, kernels, versions."""
    quiet()
    settings = load_config(config, set_, override)
    if config_only:
        write(f"{config}: a valid configuration of {len(settings.stages)} stages\n")
        return
    require_packages()
    from dfktrain.cli import preflight_view
    from dfktrain.training import evaluation_plan, monitor_plan
    from dfktrain.training.preflight import preflight

    with Progress("rows") as progress:
        report = preflight(settings, progress, all_rows=all_rows)
    for section, verify in (("evaluate", evaluation_plan.check), ("watch", monitor_plan.check)):
        try:
            verify(settings)
        except (ConfigError, DataError) as error:
            report.faults.append(f"{section}: {error}")
    _compare_splits(settings, report)
    preflight_view.write(report)
    if card is not None and report.collator is not None:
        from dfktrain.reports import data_card

        write(f"{data_card.write(settings, report.collator.processor, card, redact=redact)}\n")
    if report.faults:
        raise typer.Exit(2)


def _compare_splits(settings: TrainConfig, report: Preflight) -> None:
    """Add what training shares with what is held out."""
    from dfktrain.training import splits

    try:
        splits.check_files(settings)
        shared = splits.compare(settings)
    except DataError as error:
        if not report.faults:  # else the file that cannot be read is named already
            report.faults.append(str(error))
    except ConfigError as error:
        report.faults.append(str(error))
    else:
        report.faults += shared.faults
        report.notes += shared.warnings
