"""Media files: exact paths inside the roots, and nothing else."""

from __future__ import annotations

import base64
import json
import shutil
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


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data/images/Sub dir/0.jpg", "data/images/é.png", "data/raw/frames/7.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(KINDS["png"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("start", "name", "hint"),
    [
        ("data", "images/sub dir/0.JPG", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images\\Sub dir\\0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/Sub%20dir/0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/Sub\xa0dir/0.jpg", "did you mean 'images/Sub dir/0.jpg'?"),
        ("data", "images/e\u0301.png", "did you mean 'images/é.png'?"),
        ("data", "C:\\Users\\a\\images\\é.png", "did you mean 'images/é.png'?"),
        ("data", "é.png", "it lies in 'images' below the image root"),
        ("data", "Sub dir\\0.JPG", "it lies in 'images' below the image root"),
        ("data", "7.jpg", "it lies in 'raw/frames' below the image root"),
        ("data/images", "images/é.png", "paths start one folder above the image root"),
        ("data/images", "data/images/é.png", "paths start two folders above the image root"),
        ("data/images", "foto/é.png", "did you mean 'é.png'?"),
        ("data", "images/ée.png", "did you mean 'images/é.png'?"),
        ("data", "images/nothing-like-it.webp", "paths start at the image root (--images)"),
        ("data", "/home/a/images/é.png", "did you mean 'images/é.png'?"),
        ("data", "/home/a/b.png", "copy the file under the image root"),
        ("data", "../raw/zz.jpg", "copy the file under the image root"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_the_hint_says_what_was_meant(tree: Path, start: str, name: str, hint: str, absolute: bool) -> None:
    resolver = MediaResolver((tree / start if absolute else Path(start),))
    with pytest.raises(RowError) as caught:
        resolver.locate(name)
    assert hint in caught.value.hint


NAMES = (
    "images/sub dir/0.JPG", "é.png", "7.jpg", "images/é.png", "data/images/é.png", "foto/é.png", "images/ée.png",
    "nothing.webp", "/home/a/b.png", "../raw/zz.jpg", "C:\\a\\é.png",
)  # fmt: skip


@pytest.mark.parametrize("start", ["data", "data/images"])
def test_rejects_do_not_say_where_the_data_lies(
    tree: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": name, "caption": name, "image": name, "gold": {}} for name in NAMES]
    (tree / start / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = tree / "another place" / "deeper"
    shutil.copytree(tree / "data", other / "data")
    written = []
    for place in (tree, other):
        monkeypatch.chdir(place)
        convert(f"{start}/rows.jsonl", "out", format="captions", max_rejects="100%")
        written.append((place / "out" / "quarantine.jsonl").read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b"\n") == len(NAMES) - 1  # one of them is right
    assert str(tree).encode() not in written[0]


def test_a_suggestion_knows_files_that_came_after_an_earlier_conversion(tree: Path) -> None:
    for _ in range(2):
        with pytest.raises(RowError) as caught:
            MediaResolver((tree / "data",)).locate("later/9.PNG")
        hint = caught.value.hint
        (tree / "data" / "later").mkdir(exist_ok=True)
        (tree / "data" / "later" / "9.png").write_bytes(KINDS["png"])
    assert "did you mean 'later/9.png'?" in hint


@pytest.mark.parametrize(
    ("files", "name", "images", "folder"),
    [
        ("0.png", "0.png", None, "."),
        ("foto/0.png", "0.png", None, "foto"),
        ("foto/0.png", "0.png", "foto", "."),
        ("images/0.png", "images/0.png", None, "."),
        ("images/0.png", "0.png", "images", "."),
        ("foto/2024/0.png", "2024/0.png", None, "foto"),
        ("foto/2024/0.PNG", "0.png", None, "foto/2024"),
    ],
)
def test_pictures_of_the_image_filename_layout_are_found_as_the_hint_says(
    files: str, name: str, images: str | None, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(files).parent.mkdir(parents=True, exist_ok=True)
    Path(files).write_bytes(KINDS["png"])
    Path("posts.csv").write_text(f"image_filename,label,analisis_pelanggaran\n{name},fitnah,Palsu.\n")
    done = convert("posts.csv", "a", format="dfk_csv", images=images, validation=0, keep_empty=True)
    hint = done.codes["IMG_MISSING"]["first"]["hint"]
    assert "-o folder=NAME names another folder" in hint
    assert folder in ("foto", ".") or folder in hint, "the place is named, not only the option"
    if files.endswith(".PNG"):
        assert "a file of that name lies in 'foto/2024'" in hint
        return
    options = {"folder": folder}
    done = convert("posts.csv", "b", format="dfk_csv", images=images, validation=0, options=options)
    assert done.rows["out"] == 1
