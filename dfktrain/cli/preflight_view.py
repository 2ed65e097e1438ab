"""Print a preflight: tables, histograms of blocks, and one sample with its scored tokens coloured."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from dfkdata.common.console import shown, styled, terminal
from dfkdata.common.tables import TextTable, write_table
from dfktrain.data.collator import Collator
from dfktrain.data.masking import IGNORE, EncodedSample
from dfktrain.data.stage_data import SHOWN
from dfktrain.training.preflight import Preflight, StagePreflight

BLOCKS = "▁▂▃▄▅▆▇█"


def write(plan: Preflight) -> None:
    """Print a preflight to stdout; what would stop the run comes last and in red."""
    out = terminal(soft_wrap=True)
    for stage in plan.stages:
        _stage(out, stage, plan.collator)
    _machine(out, plan)
    for fault in plan.faults:
        out.print(styled(fault, "red"))


def _stage(out: Console, stage: StagePreflight, collator: Collator | None) -> None:
    out.print(styled(f"stage {stage.name}", "bold"))
    for reason in stage.refused[:SHOWN]:
        out.print(styled(f"  refused: {reason}", "red"))
    if len(stage.refused) > SHOWN:
        out.print(f"  refused: {len(stage.refused) - SHOWN} more", style="red")
    for reason, count in stage.left_out.items():
        out.print(styled(f"  left out: {count} rows: {reason}"))
    if not stage.samples:
        return
    tokens, scored = sum(stage.lengths), sum(stage.scored)
    out.print(f"  samples {len(stage.samples)}, steps {stage.steps}, validation {stage.validation}")
    out.print(f"  tokens {tokens:,}, of which carry loss {scored:,} ({scored / tokens:.1%})")
    rows = [_spread("tokens", stage.lengths), _spread("scored tokens", stage.scored)]
    if any(stage.video_tokens):
        rows.append(_spread("video tokens", stage.video_tokens))
    if any(stage.image_tokens):
        rows += [_spread("image tokens", stage.image_tokens), _spread("pixels", stage.pixels)]
    write_table(TextTable(("  of a sample", "min", "median", "p95", "max", "from min to max"), rows))
    out.print(f"  largest micro-batch    {stage.micro_tokens:,} tokens")
    for note in stage.notes:
        out.print(styled(f"  note: {note}", "yellow"))
    if collator is not None:
        marks = "green tokens carry loss" if out.color_system else "tokens in ⟦ ⟧ carry loss"
        out.print(f"  first sample; {marks}:")
        out.print(coloured(stage.samples[0], collator, marked=out.color_system is None))


def _machine(out: Console, plan: Preflight) -> None:
    out.print(f"[bold]machine[/bold]  engine {plan.engine}, precision {plan.precision}")
    if plan.size is not None:
        modules = f" on {len(plan.size.modules)} modules" if plan.size.modules else ""
        out.print(f"  base {plan.size.base:,} parameters, trained {plan.size.trained:,}{modules}")
    if plan.memory_gib is not None and plan.seconds is not None:
        out.print(f"  estimated: peak memory {plan.memory_gib:.2f} GiB, time {_time(plan.seconds)}")
    for note in plan.notes:
        out.print(styled(f"  note: {note}", "yellow"))
    for kernel in plan.kernels:
        out.print(styled(f"  {kernel.part}: {kernel.choice} - {kernel.why}"))
        if kernel.cost:
            out.print(styled(f"    slow on a GPU: {kernel.cost}", "yellow"))
    faults = [version for version in plan.versions if version.fault]
    used = ", ".join(f"{version.package} {version.version}" for version in plan.versions)
    out.print(styled(f"  versions: {used}"), soft_wrap=not out.is_terminal)
    for version in faults:
        out.print(styled(f"  {version.package} {version.version}: {version.fault}", "red"))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def _spread(name: str, values: list[int]) -> tuple[str, ...]:
    ordered = sorted(values)
    middle, most = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.95))
    numbers = (f"{number:,}" for number in (ordered[0], middle, most, ordered[-1]))
    return (f"  {name}", *numbers, histogram(values))


def histogram(values: list[int], bins: int = 12) -> str:
    """Return a histogram of blocks between the smallest and the largest value; a bin without values is blank."""
    low, high = min(values), max(values)
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, (value - low) * bins // max(1, high - low))] += 1
    top = max(counts)
    bars = "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top)] if count else " " for count in counts)
    return f"|{bars}|"


def coloured(sample: EncodedSample, collator: Collator, *, marked: bool = False) -> str:
    """Return a sample as Rich markup: scored tokens green, the rest dim, image and video tokens as their number.

    Args:
        sample: The encoded sample.
        collator: Knows the tokenizer and the ids of image and video tokens.
        marked: Whether scored text also stands in ⟦ ⟧, for terminals without colours.
    """
    pieces: list[str] = []
    start = 0
    while start < len(sample.input_ids):
        kind = _kind(sample, collator, start)
        stop = start
        while stop < len(sample.input_ids) and _kind(sample, collator, stop) == kind:
            stop += 1
        piece = _piece(sample.input_ids[start:stop], kind, collator)
        pieces.append(f"⟦{piece}⟧" if marked and kind == "scored" else piece)
        start = stop
    return "".join(pieces)


def _kind(sample: EncodedSample, collator: Collator, at: int) -> str:
    if sample.input_ids[at] == collator.image_id:
        return "image"
    if sample.input_ids[at] == collator.video_id:
        return "video"
    return "scored" if sample.labels[at] != IGNORE else "silent"


def _piece(ids: list[int], kind: str, collator: Collator) -> str:
    if kind in ("image", "video"):
        return f"[magenta]<{len(ids)} {kind} tokens>[/magenta]"
    written = escape(shown(collator.tokenizer.decode(ids)))
    return f"[bold green]{written}[/bold green]" if kind == "scored" else f"[dim]{written}[/dim]"
