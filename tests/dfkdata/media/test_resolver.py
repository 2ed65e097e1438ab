"""Media files: exact paths inside the roots, and nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import dfkdata
from dfkdata import convert
from dfkdata.common.errors import ConfigError
from dfkdata.media.resolver import MediaResolver
from dfkdata.rows.record import RowError
from tests.helpers.pictures import KINDS


def code(fault: pytest.ExceptionInfo[RowError]) -> str:
    return fault.value.code


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("data/a", "data/b", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/b/frame_0.png").write_bytes(KINDS["png"])
    (tmp_path / "outside/secret.png").write_bytes(KINDS["png"])
    return tmp_path / "data"


def test_an_image_is_never_taken_from_a_sibling_folder(root: Path) -> None:
    with pytest.raises(RowError) as fault:
        MediaResolver((root,)).locate("a/frame_0.png")
    assert code(fault) == "IMG_MISSING"


def test_a_near_name_is_suggested_and_not_used(root: Path) -> None:
    with pytest.raises(RowError) as fault:
        MediaResolver((root,)).locate("b/frame_O.png")
    assert "b/frame_0.png" in fault.value.hint


@pytest.mark.parametrize("name", ["../outside/secret.png", "a/../../outside/secret.png", "..", "/etc/passwd"])
def test_a_path_that_leaves_the_root_is_refused(root: Path, name: str) -> None:
    with pytest.raises(RowError) as fault:
        MediaResolver((root,)).locate(name)
    assert code(fault) == "IMG_OUTSIDE"


def test_symlinks_that_leave_the_root_are_refused(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "outside" / "secret.png")
    (root / "folder").symlink_to(root.parent / "outside")
    for name in ("link.png", "folder/secret.png"):
        with pytest.raises(RowError) as fault:
            MediaResolver((root,)).locate(name)
        assert code(fault) == "IMG_OUTSIDE"


def test_a_root_that_is_itself_a_symlink_is_fine(root: Path) -> None:
    alias = root.parent / "alias"
    alias.symlink_to(root)
    assert MediaResolver((alias,)).locate("b/frame_0.png") == str(alias / "b/frame_0.png")
    assert MediaResolver((alias,)).locate(str(root / "b/frame_0.png")) == str(root / "b/frame_0.png")


def test_a_name_under_two_roots_is_ambiguous(root: Path) -> None:
    (root / "a/frame_0.png").write_bytes(KINDS["png"])
    with pytest.raises(RowError) as fault:
        MediaResolver((root / "a", root / "b")).locate("frame_0.png")
    assert code(fault) == "IMG_AMBIGUOUS"


def test_nothing_is_fetched(root: Path) -> None:
    with pytest.raises(RowError) as fault:
        MediaResolver((root,)).locate("https://example.org/a.png")
    assert code(fault) == "IMG_REMOTE"


def test_an_embedded_image_is_written_under_its_hash(root: Path, tmp_path: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(KINDS["png"]).decode()
    path = Path(MediaResolver((root,), tmp_path / "store").locate(uri))
    assert path.read_bytes() == KINDS["png"]
    assert path.suffix == ".png"
    with pytest.raises(RowError) as fault:
        MediaResolver((root,)).locate(uri)
    assert code(fault) == "IMG_EMBEDDED"


def test_an_image_folder_that_is_none_is_the_callers_mistake(tmp_path: Path) -> None:
    row = {"instruction": "a", "output": "b", "image": "a.png"}
    for call in (convert, lambda rows, out, **more: dfkdata.read(rows, **more)):
        with pytest.raises(
            ConfigError, match=r"nowhere is not a folder; give the one in which image names start"
        ):
            call([row], tmp_path / "out", format="alpaca", images=tmp_path / "nowhere")
