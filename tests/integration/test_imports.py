"""Importing a package is light, and every public name is what its name says."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

PACKAGES = ("dfkdata", "dfkeval", "dfktrain")
HEAVY = ("torch", "transformers", "peft", "datasets", "PIL", "torchvision", "pandas", "pyarrow", "matplotlib")
PUBLIC = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


def loaded_after(code: str) -> set[str]:
    """The top packages in memory after `code` in a new interpreter."""
    tell = "import sys, json\nsys.stdout.write(json.dumps([name.split('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_heavy_library(package: str) -> None:
    loaded = loaded_after(f"import {package}")
    assert package in loaded
    assert loaded.isdisjoint(HEAVY)


def test_imports_point_one_way() -> None:
    assert loaded_after("import dfkdata").isdisjoint({"dfkeval", "dfktrain"})
    names = "EvalConfig, evaluate, load_run, compare, decode, parse_tool_calls"
    assert loaded_after(f"from dfkeval import {names}").isdisjoint({"dfktrain"})


def test_converting_and_parsing_need_no_heavy_library() -> None:
    assert loaded_after("from dfkdata import read, convert, load_rows, prompt, training_row").isdisjoint(
        {"torch", "transformers", "datasets"}
    )
    assert loaded_after(
        "from dfkeval import decode\n"
        "assert decode('Label: netral\\n\\nAnalisis: a', 'dfk_label').value['label'] == 'netral'"
    ).isdisjoint({"torch", "transformers", "datasets"})


@pytest.mark.parametrize("command", ["dfkdata", "dfkeval", "dfktrain"])
def test_the_help_of_a_command_loads_no_heavy_library(command: str) -> None:
    ask = (
        f"import sys; sys.argv = ['{command}', '--help']\nsys.stdout.write = lambda text: len(text)\n"
        f"from {command}.cli.app import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\ndel sys.stdout.write"
    )
    assert loaded_after(ask).isdisjoint(HEAVY)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_a_public_name_has_a_docstring_and_is_no_module(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    assert callable(value)
    assert (value.__doc__ or "").strip()
    assert value.__module__.split(".")[0] == package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_shadows_a_public_name(package: str) -> None:
    module = importlib.import_module(package)
    files = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert files.isdisjoint(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
