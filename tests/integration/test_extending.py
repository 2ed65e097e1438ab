"""docs/extending.md holds what it promises: its files, in an empty folder, work from the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from dfkeval.models import families
from tests.helpers import processes
from tests.helpers.commands import called
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


def run(command: str, folder: Path) -> tuple[int, str]:
    """Run one command of the page in `folder`; return its exit code and what it printed."""
    program, *words = shlex.split(command)
    if program == "cat":
        return 0, "".join((folder / word).read_text(encoding="utf-8") for word in words)
    return processes.command([program, *words], folder, {"COLUMNS": "200"})


def test_every_command_of_the_page_does_what_the_page_says(project: Path) -> None:
    steps = page()[1]
    assert len(steps) >= 9
    for step in steps:
        code, printed = run(step.command, project)
        assert code == 0, f"{step.command}\n{printed}"
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
stages: [{name: s, data: [rows.jsonl], steps: 1}]
"""
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "id": "1"}\n'
ENTRY = re.compile(r'^    "qwen3_5": ModelFamily\(.*?^    \),\n', re.MULTILINE | re.DOTALL)


def test_a_model_family_is_one_entry_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the entry the built-in model's family is unknown; the entry alone makes it trainable again."""
    source = (ROOT / "dfkeval" / "models" / "families.py").read_text(encoding="utf-8")
    assert len(ENTRY.findall(source)) == 1
    (tmp_path / "rows.jsonl").write_text(ROW)
    (tmp_path / "train.yaml").write_text(TRAIN)
    all_families = dict(families.FAMILIES)
    try:
        del families.FAMILIES["qwen3_5"]
        code, _, err = called(monkeypatch, capsys, "check", tmp_path / "train.yaml")
        assert code == 2 and "qwen3_5" in err and "Traceback" not in err
    finally:  # in their order
        families.FAMILIES.clear()
        families.FAMILIES.update(all_families)
    code, out, err = called(monkeypatch, capsys, "check", tmp_path / "train.yaml")
    assert code == 0, out + err
