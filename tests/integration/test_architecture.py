"""The rooms of each package: few, named, without circles, and as ARCHITECTURE.md draws them."""

from __future__ import annotations

import ast
import re

import pytest

from dfkdata.common import plugins
from tests.helpers import imports
from tests.helpers.places import ROOT

#: Doors that users know and that hold next to nothing; they are not counted among the rooms.
DOORS = {"dfkeval": {"testing"}, "dfktrain": {"tiny"}, "dfkdata": set()}
FAMILIES = (
    "dfkdata.formats",
    "dfkdata.exports",
    "dfkdata.schemas",
    "dfkeval.metrics",
    "dfkeval.backends",
    "dfkeval.validators",
    "dfktrain.engines",
)
#: Each member of a family defines these, by its contract; users name the member and never the class.
MEMBER_CLASSES = {"Options", "Config", "Answer"}


def rooms(package: str) -> dict[str, str]:
    """Return the rooms of `package` with the first line of their docstrings."""
    found = {}
    for path in sorted((ROOT / package).iterdir()):
        init = path / "__init__.py" if path.is_dir() else path
        if path.name.startswith(("__", ".")) or init.suffix != ".py" or not init.is_file():
            continue
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        found[path.stem] = " ".join(text.split("\n\n")[0].split())
    return found


@pytest.mark.parametrize("package", imports.PACKAGES)
def test_a_package_has_at_most_twelve_rooms_and_the_map_names_each_with_its_job(package: str) -> None:
    found = rooms(package)
    assert len(set(found) - DOORS[package]) <= 12
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    part = page[page.index(f"\n{package}/") :]
    drawn = re.findall(
        r"^  (\w+)(?:/|\.py) +(\S.*)$", part[: part.index("\n```")].split("\n\n")[0], re.MULTILINE
    )
    assert {name: " ".join(job.split()) for name, job in drawn} == found


def test_no_module_imports_itself_through_others() -> None:
    assert imports.cycles() == []


def test_the_search_for_circles_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    known = imports.modules()
    low, high = known["dfkdata.common.errors"], known["dfkdata.conversion.convert"]
    closing = imports.Import(low.name, high.name, None, 1)
    monkeypatch.setattr(low, "imports", [*low.imports, closing])
    assert any({low.name, high.name} <= set(circle) for circle in imports.cycles())


def test_no_private_name_is_imported_from_another_room() -> None:
    assert imports.private_imports() == []


def test_no_two_public_classes_share_a_name() -> None:
    shared = {
        name: places
        for name, places in imports.public_classes().items()
        if len(places) > 1 and name not in MEMBER_CLASSES
    }
    assert shared == {}


def test_members_of_a_family_do_not_know_one_another() -> None:
    members = {f"{family}.{name}" for family in FAMILIES for name in plugins.names(family)}
    lines = [
        f"{each.source}:{each.line} imports {each.target}"
        for name in members
        for each in imports.modules()[name].imports
        if each.target in members and each.target.rpartition(".")[0] == name.rpartition(".")[0]
    ]
    assert lines == []


def test_functions_are_short_but_for_the_signatures_of_commands() -> None:
    """Lines of code: the docstring does not count, nor does the signature of a command."""
    long = {}
    for module, node, lines in imports.functions():
        lines -= docstring_lines(node)
        if ".cli." in module.name:
            lines -= node.body[0].lineno - node.lineno
        if lines > 60:
            long[f"{module.name}.{node.name}"] = lines
    assert long == {}


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines the docstring of a function takes."""
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def test_modules_have_at_most_400_lines() -> None:
    assert {module.name: module.lines for module in imports.modules().values() if module.lines > 400} == {}


FOREIGN = "dfkeval.models.loading"
"""Turns whatever libraries raise about files of somebody else into one error; nothing else catches everything."""


def test_no_handler_catches_everything() -> None:
    broad = []
    for module in imports.modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                if caught in ("everything", "Exception", "BaseException") and module.name != FOREIGN:
                    broad.append(f"{module.name}:{node.lineno}")
    assert broad == []


#: Functions that take `**keywords`, and why nothing is hidden by it.
KEYWORDS = {
    "dfkdata.cli.options": "the fields of `ConvertOptions`, which its signature shows",
    "dfkdata.pages.look": "the variables of a template, which is strict about them",
    "dfkdata.pages.words": "the places of a sentence",
    "dfkdata.schemas._captions": "overrides pydantic",
    "dfkdata.schemas.caption": "overrides pydantic",
    "dfkeval.inference.predictor": "the fields of the prompt, which the schema names",
    "dfkeval.inference.serving.server": "handed to uvicorn",
    "dfkeval.models.attention": "replaces a layer's forward",
    "dfkeval.models.image_text_processor": "overrides a processor of transformers",
    "dfkeval.models.light_import": "hands a call on",
    "dfktrain.data.packing": "wraps kernels of fla and transformers",
    "dfktrain.engines._body": "replaces a model's forward",
    "dfktrain.engines._delta_rule": "wraps a kernel of fla",
    "dfktrain.engines._fused": "replaces a function of transformers",
    "dfktrain.engines._picture_attention": "replaces a layer's forward",
    "dfktrain.losses.attach": "overrides a model's forward",
    "dfktrain.training.callbacks.monitor": "overrides a callback of transformers",
    "dfktrain.training.callbacks.progress": "overrides a callback of transformers",
    "dfktrain.training.callbacks.trackers": "overrides a callback of transformers",
    "dfktrain.training.trainer": "overrides the Trainer of transformers",
}


def test_no_keyword_arguments_hide_parameters() -> None:
    hidden = []
    for module, node, _ in imports.functions():
        rest = node.args.kwarg
        if rest is None or module.name in KEYWORDS:
            continue
        written = ast.unparse(
            rest.annotation or rest
        )  # a ParamSpec hands the parameters of another function on
        if not written.startswith("Unpack[") and not written.endswith(".kwargs"):
            hidden.append(f"{module.name}.{node.name}")
    assert hidden == []
    taking = {module.name for module, node, _ in imports.functions() if node.args.kwarg is not None}
    assert set(KEYWORDS) - taking == set(), "these take no keywords any more"


def test_old_paths_are_named_nowhere() -> None:
    """Documents, notebooks and code name modules that exist."""
    known = set(imports.modules())
    tops = {name.split(".")[1] for name in known if "." in name}
    wrong = []
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("notebooks/*.ipynb"),
        *ROOT.glob("bench/*.py"),
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
    ]:
        if path.name in ("CHANGELOG.md", "LOG.md"):
            continue
        text = path.read_text(encoding="utf-8")
        for dotted in re.findall(r"\b(?:from|import) ((?:dfkdata|dfkeval|dfktrain)(?:\.\w+)+)", text):
            if dotted not in known and dotted.rpartition(".")[0] not in known:
                wrong.append(f"{path.name}: {dotted}")
        for package, name in re.findall(r"\b(dfkdata|dfkeval|dfktrain)/(\w+)(?:\.py|/)", text):
            if name not in tops and not (ROOT / package / name).exists():
                wrong.append(f"{path.name}: {package}/{name}")
    assert wrong == []


#: A path below one of the folders of this repository, as documents, comments and the Makefile write it.
WRITTEN_PATH = re.compile(r"(?<![\w/.])((?:dfkdata|dfkeval|dfktrain|tests|bench|tools|docs)/[\w./-]*\w)")


def test_every_path_that_is_written_anywhere_exists() -> None:
    """What is history (CHANGELOG, the log of experiments, decisions) may name what is gone."""
    sources = [
        path for top in (*imports.PACKAGES, "tests", "bench", "tools") for path in (ROOT / top).rglob("*.py")
    ]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb"), ROOT / "Makefile"]
    wrong = []
    for path in (*sources, *pages):
        if path.name in ("CHANGELOG.md", "LOG.md"):
            continue
        for place in WRITTEN_PATH.findall(path.read_text(encoding="utf-8")):
            if not any((ROOT / f"{place}{end}").exists() for end in ("", ".py")):
                wrong.append(f"{path.relative_to(ROOT)}: {place}")
    assert wrong == []


def test_tests_mirror_the_tree() -> None:
    """Each folder of tests is named after a room."""
    extra = {"helpers", "fakes", "golden", "integration"}
    for folder in (ROOT / "tests").iterdir():
        if folder.is_dir() and folder.name not in extra and not folder.name.startswith("__"):
            inside = {
                path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("__")
            }
            assert inside <= set(rooms(folder.name)), folder


def test_a_test_file_is_named_after_a_module_or_a_room() -> None:
    """`test_NAME[_TOPIC].py` lies where the module or folder NAME lies, or has the name of its own folder.

    `test_contract.py` of a family holds every member to the contract."""
    strange = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        place = path.relative_to(ROOT / "tests")
        if place.parts[0] not in imports.PACKAGES:
            continue  # integration and bench span packages
        folder = ROOT / place.parent
        names = {
            folder.name,
            *(entry.stem.lstrip("_") for entry in folder.glob("*") if entry.stem[:2] != "__"),
        }
        if ".".join(place.parts[:-1]) in FAMILIES:
            names.add("contract")
        topic = path.stem.removeprefix("test_")
        if not any(topic == name or topic.startswith(f"{name}_") for name in names):
            strange.append(str(place))
    assert strange == []


def test_only_the_console_writes_to_the_terminal() -> None:
    """What is shown is escaped there; `sys.stdout.flush` and `.isatty` write nothing."""
    writes = re.compile(
        r"sys\.std(out|err)\.(write|buffer)|sys\.__std|[^.\w]print\(|Console\(|typer\.(s?echo)\("
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in imports.PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != ROOT / "dfkdata/common/console.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line) and "..." not in line and ">>>" not in line
    ]
    assert found == []
