"""The notebooks run from the first cell to the last on the built-in model, each cell as a kernel would run
it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.places import ROOT

FOLDER = ROOT / "notebooks"
NAMES = ("colab", "kaggle")
OWN = {"title", "place"}
"""Cells in which the two differ."""

KERNEL = """
import json, sys
space = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        print("cell:", cell["id"], flush=True)
        exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
"""

FORKED = """
import importlib, os, subprocess, sys, traceback

real = subprocess.Popen

class Forked:
    def __init__(self, words, text, stdout, stderr):
        assert text and stdout == subprocess.PIPE and stderr == subprocess.STDOUT
        self.words = words

    def __enter__(self):
        read, write = os.pipe()
        sys.stdout.flush()
        self.child = os.fork()
        if self.child == 0:
            os.dup2(write, 1), os.dup2(write, 2)
            sys.argv, code, subprocess.Popen = self.words, 1, real
            try:
                importlib.import_module(self.words[0] + ".cli.app").main()
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        os.close(write)
        self.stdout = os.fdopen(read, encoding="utf-8")
        return self

    def __exit__(self, *error):
        self.stdout.close()
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])

subprocess.Popen = Forked
"""
"""Commands as forks of the kernel, which has torch and transformers: a new interpreter takes seconds to import them."""


def cells(name: str) -> dict[str, dict[str, Any]]:
    """The notebook's cells by id."""
    found = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: cell for cell in found}


def executed(name: str, work: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """All code cells in one process, as a kernel runs them."""
    paths = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    given = {"PATH": paths, "PYTHONPATH": str(ROOT), "DFK_WORK": str(work), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", KERNEL, str(FOLDER / f"{name}.ipynb")]
    return subprocess.run(
        words, capture_output=True, text=True, env=os.environ | given | environment, cwd=work.parent
    )


def forked(name: str, work: Path, **environment: str) -> tuple[int, str]:
    """All code cells in one process that forks its commands; the exit code and all that was printed."""
    log = work.parent / "log"
    given = {"DFK_WORK": str(work), "HF_HUB_OFFLINE": "1"} | environment
    process = processes.start(FORKED + KERNEL, [FOLDER / f"{name}.ipynb"], log, given)
    process.join()
    return int(process.exitcode or 0), log.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["colab", pytest.param("kaggle", marks=pytest.mark.slow)])
def test_a_notebook_goes_from_raw_posts_to_a_compared_report(name: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    if name == "colab":
        code, printed = forked(name, work, DFK_MODEL="tiny")
    else:
        done = executed(name, work, DFK_MODEL="tiny")
        code, printed = done.returncode, done.stdout + done.stderr
    assert code == 0, printed[-4000:]
    report = json.loads((work / "trained/run.json").read_text())
    assert report["stages"][0]["steps"] == 4
    rows = len((work / "data/test.jsonl").read_text(encoding="utf-8").splitlines())
    for side in ("base", "tuned"):
        assert json.loads((work / "runs" / side / "summary.json").read_text())["n"] == rows > 2
    asked = json.loads((work / "runs/tuned/config.json").read_text())
    assert "adapter" in json.dumps(asked) and str(work / "trained/adapter") in json.dumps(asked)
    assert "labels.macro_f1" in printed and "LABEL_UNKNOWN" in printed
    assert "adapter_model.safetensors" in printed and "nothing was sent to ORG/NAME" in printed
    page = (work / "runs/tuned/report.html").read_text(encoding="utf-8")
    assert "base" in page and "labels.macro_f1" in page
    assert (work / "trained/training.html").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_wheel_the_first_cell_that_needs_it_says_so(name: str, tmp_path: Path) -> None:
    done = executed(name, tmp_path / "work", DFK_MODEL="org/model")
    assert done.returncode == 1 and "cell: data" not in done.stdout
    assert re.search(r"FileNotFoundError: no dfk-\*\.whl below /(content|kaggle/input)", done.stderr)


def test_a_command_that_fails_stops_the_notebook(tmp_path: Path) -> None:
    command = tmp_path / "bin/dfkdata"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho told on stderr >&2\nexit 3\n")
    command.chmod(0o755)
    paths = f"{command.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = executed("colab", tmp_path / "work", DFK_MODEL="tiny", PATH=paths)
    assert done.returncode == 1 and "told on stderr" in done.stdout
    assert "cell: convert" in done.stdout and "cell: check" not in done.stdout
    assert "RuntimeError: dfkdata convert: exit code 3" in done.stderr


def test_the_two_notebooks_differ_only_in_where_they_run() -> None:
    one, two = map(cells, NAMES)
    assert list(one) == list(two)
    assert {name for name in one if one[name] != two[name]} == OWN


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_output_and_no_secret_and_is_of_the_format(name: str) -> None:
    raw = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    assert len(cells(name)) == len(raw["cells"]) and cells(name)["title"]["cell_type"] == "markdown"
    for cell in raw["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "hf_" not in json.dumps(raw).lower().replace("hf_token", "")
