"""docs/extending.md holds what it promises: its files, in an empty folder, work from the command line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.places import DOCS, ROOT

BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One command of the page and the text that its output must hold."""

    command: str
    output: tuple[str, ...]


def page() -> tuple[dict[str, str], list[Step]]:
    """Return the files and the commands of docs/extending.md."""
    files: dict[str, str] = {}
    steps: list[Step] = []
    for kind, name, body in BLOCK.findall((DOCS / "extending.md").read_text(encoding="utf-8")):
        if name:
            files[name] = body
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, *output = part.strip().split("\n")
                steps.append(Step(command, tuple(output)))
    return files, steps


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files in an empty folder."""
    folder = tmp_path_factory.mktemp("project")
    for name, body in page()[0].items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(body, encoding="utf-8")
    return folder


def run(command: str, folder: Path, code: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one command of the page in `folder` with the packages of `code`."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": f".{os.pathsep}{code}", "COLUMNS": "200"}
    return subprocess.run(
        shlex.split(command), cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_every_command_of_the_page_does_what_the_page_says(project: Path) -> None:
    steps = page()[1]
    assert len(steps) >= 9
    for step in steps:
        done = run(step.command, project)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{step.command}\n{printed}"
        for line in step.output:
            assert line in printed, f"{step.command}\n{line!r} is not in\n{printed}"


def test_each_family_has_a_block() -> None:
    named = set(page()[0])
    assert named >= {
        f"shop/{name}.py" for name in ("tone", "reviews", "pairs", "links", "wordlist", "brevity", "polite")
    }


TRAIN = """
model: {name: tiny}
adapter: {rank: 2}
stages: [{name: s, data: [ROWS], steps: 1}]
"""
ENTRY = re.compile(r'^    "qwen3_5": ModelFamily\(.*?^    \),\n', re.MULTILINE | re.DOTALL)


def test_a_model_family_is_one_entry_of_one_file(tmp_path: Path) -> None:
    """Without the entry the built-in model's family is unknown; the entry alone makes it trainable again."""
    code = tmp_path / "code"
    for package in ("dfkdata", "dfkeval", "dfktrain"):
        shutil.copytree(ROOT / package, code / package)
    rows = (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": "1"}\n'
    )
    (tmp_path / "rows.jsonl").write_text(rows * 1)
    (tmp_path / "train.yaml").write_text(TRAIN.replace("ROWS", "rows.jsonl"))
    families = code / "dfkeval" / "models" / "families.py"
    entry = families.read_text(encoding="utf-8")
    assert len(ENTRY.findall(entry)) == 1
    families.write_text(ENTRY.sub("", entry), encoding="utf-8")
    without = run("python -m dfktrain check train.yaml", tmp_path, code)
    assert without.returncode == 2 and "qwen3_5" in without.stderr and "Traceback" not in without.stderr
    families.write_text(entry, encoding="utf-8")
    done = run("python -m dfktrain check train.yaml", tmp_path, code)
    assert done.returncode == 0, done.stdout + done.stderr
