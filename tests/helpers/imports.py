"""Read the packages' sources: which module imports which, and what each module defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.helpers.places import ROOT

PACKAGES = ("dfkdata", "dfkeval", "dfktrain")


@dataclass(frozen=True)
class Import:
    """One name that a module imports. target: the module that defines it; name: None for a whole module."""

    source: str
    target: str
    name: str | None
    line: int


@dataclass
class Module:
    """One source file: its dotted name, its syntax tree, and whether it is a package's `__init__`."""

    name: str
    path: Path
    tree: ast.Module
    package: bool
    lines: int
    imports: list[Import] = field(default_factory=list)


@cache
def modules() -> dict[str, Module]:
    """All modules of the three packages by dotted name, with every import: at the top, inside functions and
    under TYPE_CHECKING."""
    found = {module.name: module for package in PACKAGES for module in _read(package)}
    for module in found.values():
        module.imports = list(_imports(module, found))
    return found


def _read(package: str) -> Iterator[Module]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        inside = parts[-1] == "__init__"
        source = path.read_text(encoding="utf-8")
        name = ".".join(parts[:-1] if inside else parts)
        yield Module(name, path, ast.parse(source), inside, source.count("\n"))


def _imports(module: Module, known: dict[str, Module]) -> Iterator[Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield Import(module.name, alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known:
                    yield Import(module.name, whole, None, node.lineno)
                elif node.module in known:
                    yield Import(module.name, node.module, alias.name, node.lineno)


def room(name: str) -> str:
    """The room of a module: its package and the first part below it."""
    return ".".join(name.split(".")[:2])


def cycles() -> list[list[str]]:
    """Groups of modules that import one another in a circle (strongly connected components of two or more)."""
    graph = {name: sorted({each.target for each in module.imports}) for name, module in modules().items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def private_imports() -> list[str]:
    """Imports of a private name, or from a private module, of another room, and `module._name` of any module."""
    lines = []
    for module in modules().values():
        lines += [f"{module.name}:{node.lineno} uses {ast.unparse(node)}" for node in _private_uses(module)]
        for each in module.imports:
            if room(each.source) == room(each.target):
                continue
            parts = [*each.target.split("."), *([each.name] if each.name else [])]
            if any(part.startswith("_") and not part.startswith("__") for part in parts):
                lines.append(f"{each.source}:{each.line} imports {'.'.join(parts)}")
    return lines


def _private_uses(module: Module) -> Iterator[ast.Attribute]:
    """Yield each `name._private` in which `name` is one of our modules."""
    known = modules()
    ours = {
        alias.asname or alias.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" in known
    }
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id in ours and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node


def public_classes() -> dict[str, list[str]]:
    """Name of each public class at a module's top -> the modules that define it."""
    found: dict[str, list[str]] = {}
    for module in modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module.name)
    return found


def functions() -> Iterator[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function with its length in lines, docstring included."""
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node, (node.end_lineno or node.lineno) - node.lineno + 1
