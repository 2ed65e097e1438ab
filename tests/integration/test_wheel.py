"""The wheel holds everything and needs only its declared dependencies: installed alone, it imports, converts,
parses and validates.

The bare environment is a folder with the wheel and links to the declared dependencies (and theirs) of this
environment, run by an isolated interpreter without site-packages. So it works offline, and nothing heavy can
be imported by accident."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without build isolation (setuptools comes with the dev extra)."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("dfkdata", "dfkeval", "dfktrain", "tools", "pyproject.toml", "README.md", "LICENSE"):
        _copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("dfk-*.whl"))


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.write_bytes(source.read_bytes())
        return
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def _needed(names: list[str], seen: set[str] | None = None) -> Iterator[importlib.metadata.Distribution]:
    """The distributions of these requirements and of theirs, extras left out."""
    seen = set() if seen is None else seen
    for requirement in names:
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip())[0].lower().replace("_", "-")
        if "extra ==" in requirement or name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of another platform or Python version
        yield found
        yield from _needed(list(found.requires or []), seen)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    declared = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    for distribution in _needed(declared):
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def _python(bare: Path, code: str, *arguments: str) -> str:
    start = f"import sys; sys.path.append({str(bare)!r}); sys.argv = ['x', *{list(arguments)!r}]\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_tiny_weights_the_template_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        weights = archive.getinfo("dfkeval/models/tiny/weights/model.safetensors")
    assert weights.file_size == (ROOT / "dfkeval/models/tiny/weights/model.safetensors").stat().st_size
    for name in ("chat_template.jinja", "config.json", "tokenizer.json", "preprocessor_config.json"):
        assert f"dfkeval/models/tiny/weights/{name}" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert {f"{package}/py.typed" for package in ("dfkdata", "dfkeval", "dfktrain")} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "tools", "bench"))]


def test_every_data_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    files = [
        path
        for package in ("dfkdata", "dfkeval", "dfktrain")
        for path in (ROOT / package).rglob("*")
        if path.is_file()
    ]
    wanted = {
        str(path.relative_to(ROOT))
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert wanted <= names


def test_a_preset_comes_out_of_the_wheel_as_it_stands_in_the_tree(bare: Path, tmp_path: Path) -> None:
    code = """
import os
from dfktrain.cli.app import app
os.chdir(sys.argv[1])
app(["init", "json_captioner_v2"], standalone_mode=False)
"""
    said = _python(bare, code, str(tmp_path))
    assert said.startswith("json_captioner_v2.yaml\n")
    written = (tmp_path / "json_captioner_v2.yaml").read_bytes()
    assert written == (ROOT / "dfktrain/config/presets/json_captioner_v2.yaml").read_bytes()


def test_the_light_core_imports_without_any_extra(bare: Path) -> None:
    heavy = ("torch", "transformers", "datasets", "peft")
    code = f"""
import dfkdata, dfkeval, dfktrain
from importlib.util import find_spec
print([name for name in {heavy!r} if find_spec(name)])
"""
    assert _python(bare, code).strip() == "[]"
    assert (
        _python(
            bare, "import dfkeval.models.tiny as t; print((t.path() / 'model.safetensors').is_file())"
        ).strip()
        == "True"
    )


def test_init_writes_a_preset_from_the_wheel_alone(bare: Path, tmp_path: Path) -> None:
    code = """
from dfkeval.cli.app import app
sys.argv = ["dfkeval", "init", "qwen_bench", "--out", sys.argv[1]]
app()
"""
    printed, written = _python(bare, code, str(tmp_path)), tmp_path / "qwen_bench.yaml"
    assert written.read_text() == (ROOT / "dfkeval/runs/presets/qwen_bench.yaml").read_text()
    assert str(written) in printed


def test_the_light_core_converts_parses_and_validates(bare: Path, tmp_path: Path) -> None:
    gold = {"subjects": [{"name": "table", "attributes": ["long"]}], "actions": [], "setting": "indoor"}
    (tmp_path / "raw.jsonl").write_text(json.dumps({"caption": "A long table.", "gold": gold}) + "\n")
    code = """
from dfkdata import convert, load_rows
from dfkeval import decode, write_tool_call
from pathlib import Path
folder = Path(sys.argv[1])
convert(folder / "raw.jsonl", folder / "out", format="captions", validation=0)
row = next(load_rows(folder / "out" / "train.jsonl"))
call = row["messages"][-1]["tool_calls"][0]["function"]
print(decode(write_tool_call(call["name"], call["arguments"]), "caption").value == row["meta"]["gold"])
"""
    assert _python(bare, code, str(tmp_path)).strip() == "True"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("dfktrain", ["demo", "--out", "x"]),
        ("dfktrain", ["run", "train.yaml", "--out", "x"]),
        ("dfkeval", ["run", "eval.yaml", "--out", "x"]),
    ],
)
def test_a_command_that_needs_an_extra_says_which_in_one_line(
    bare: Path, tmp_path: Path, module: str, arguments: list[str]
) -> None:
    (tmp_path / "train.yaml").write_text(
        "model: {name: tiny}\nstages: [{name: a, data: [t.jsonl], steps: 1}]\n"
    )
    row = {
        "id": "1",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "images": [],
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "eval.yaml").write_text(
        "data: t.jsonl\nschema: caption\nbackend: {kind: transformers, model: tiny}\n"
    )
    start = f"import sys; sys.path.append({str(bare)!r}); sys.argv = ['{module}', *{arguments!r}]\n"
    code = start + f"from {module}.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert 'pip install "dfk[' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
