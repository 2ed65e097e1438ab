"""docs/tutorial.md: its commands run in their order, end as the page says, and print what stands below them.

Words are compared and not lines, so that another look of tables is no difference. Times, and what only the whole
training gives, are left out; the slow test trains as the page does."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from tests.integration.test_starter import APPS, SHORT
from tools import tutorial

STEPS = tutorial.steps(tutorial.PAGE.read_text(encoding="utf-8"))

#: Lines that differ from machine to machine: versions, times, memory.
MACHINE = re.compile(
    r"seconds|, \d+ s$|estimated|gated delta|convolution|^machine|^    slow on", re.MULTILINE
)
NUMBER = re.compile(r"[-+<]? ?\d[\d.,]*%?")


def words(text: str, *, numbers: bool) -> set[str]:
    """The words of an output without frames, with or without its numbers."""
    text = text.partition("  versions: ")[0]
    lines = [line for line in text.splitlines() if not MACHINE.search(line)]
    plain = re.sub(r"[^\w\s.,:;+<>=%/_'\[\]()⟦⟧-]", " ", "\n".join(lines))
    return set((plain if numbers else NUMBER.sub(" ", plain)).split())


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def ran(step: tutorial.Step, folder: Path, *more: str) -> str:
    """Run a step in this process, in the current folder; return what it wrote to stdout."""
    program, *arguments = shlex.split(step.command)
    if program == "head":
        return "\n".join(Path(arguments[-1]).read_text(encoding="utf-8").splitlines()[: int(arguments[1])])
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(Terminal()) as stdout:
        for name, value in tutorial.TERMINAL.items():
            patched.setenv(name, value)
        status = get_command(APPS[program])([*arguments, *more], standalone_mode=False)
    assert int(status or 0) == step.status, (step.command, stdout.getvalue())
    return tutorial.shown(stdout.getvalue(), folder)


def compare(step: tutorial.Step, printed: str, *, numbers: bool) -> None:
    missing = words(step.output, numbers=numbers) - words(printed, numbers=numbers)
    assert not missing, (
        f"{step.command}\nprints no longer {sorted(missing)}; run: python -m tools.tutorial\n{printed}"
    )


def test_the_page_goes_from_a_csv_to_a_report_and_to_answers() -> None:
    typed = [" ".join(step.command.split()[:2]) for step in STEPS]
    assert typed == [
        "dfktrain init", "head -n", "dfkdata check", "dfkdata convert", "dfkdata preview", "dfkdata card",
        "dfktrain check", "dfktrain run", "dfkeval compare", "dfkeval predict", "dfkeval predict",
    ]  # fmt: skip
    assert all(step.output.strip() for step in STEPS)


def test_the_commands_run_in_order_and_print_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two training steps instead of 224, so behind the training the answers are others."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    training = [" ".join(step.command.split()[:2]) for step in STEPS].index("dfktrain run")
    for step in STEPS[:training]:
        compare(step, ran(step, tmp_path), numbers=True)
    run = STEPS[training]
    printed = ran(run, tmp_path, *SHORT)
    assert words(
        "curves: adapter: report: base tuned validity.schema_valid labels.macro_f1", numbers=True
    ) <= words(printed, numbers=True)
    assert (
        "runs/starter/evaluation/report.html" in printed
        and Path("runs/starter/evaluation/report.html").is_file()
    )
    printed = ran(STEPS[training + 1], tmp_path)
    assert "base -> tuned, 2 common rows" in printed


@pytest.mark.slow
def test_the_page_s_training_teaches_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in STEPS:
        printed = ran(step, tmp_path)
        compare(step, printed, numbers=False)
        if step.command.startswith("dfktrain run"):
            accuracy = re.search(r"labels\.accuracy +\S+ +(\S+)", printed)
            assert accuracy is not None and float(accuracy[1]) >= 0.7
