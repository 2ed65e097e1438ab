"""Every package that shipped code imports is declared, and every declared one is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dfkdata", "dfkeval", "dfktrain")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "jsonschema_rs": "jsonschema-rs",
    "prometheus_client": "prometheus-client",
}
"""Module -> distribution, if they have other names."""

BROUGHT_ALONG = {
    "pydantic-core": "pydantic",
    "markupsafe": "jinja2",
    "tokenizers": "transformers",
    "triton": "torch on Linux; kernels for GPUs",
    "torchvision": "the user; pictures are scaled by Pillow without it",
    "hypothesis": "whoever tests a parser with dfkeval.testing",
    "zstandard": "the user, for .zst files without pyarrow",
}
"""Modules that another package brings, or that are used only if the user installed them."""


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _imported() -> dict[str, str]:
    modules: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                for name in names:
                    modules.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return {name: path for name, path in modules.items() if name not in {*sys.stdlib_module_names, *PACKAGES}}


def test_what_is_imported_is_declared_and_the_core_needs_nothing_idle() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: found for name, found in project["optional-dependencies"].items() if name != "dev"}
    core = {_name(requirement) for requirement in project["dependencies"]}
    declared = core | {_name(requirement) for found in extras.values() for requirement in found}
    modules = _imported()
    distributions = {
        DISTRIBUTIONS.get(name, name).lower().replace("_", "-"): path for name, path in modules.items()
    }
    missing = {
        name: path
        for name, path in distributions.items()
        if name not in declared and name not in BROUGHT_ALONG
    }
    assert not missing
    assert BROUGHT_ALONG.keys() <= distributions.keys(), "no longer imported"
    assert not core - distributions.keys(), "a dependency of the core that nothing imports"
