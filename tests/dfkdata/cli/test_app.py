"""The command line: exit codes, one-line errors, help with examples."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from dfkdata.cli import app
from tests.helpers.rows import caption, write


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does; a new interpreter takes half a second to import it."""
    command = [sys.executable, "-c", "from dfkdata.cli.app import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    words, out, err = ["dfkdata", *map(str, arguments)], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            app.main()
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(
        tmp_path / "in.jsonl", [*[caption(n) for n in range(20)], '{"caption": "x", "gold": {"mood": "sad"}}']
    )


def test_rejects_over_the_limit_exit_1_and_are_shown_with_their_place(source: Path, tmp_path: Path) -> None:
    done = process("convert", source, "--from", "captions", "--to", "messages", "--out", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "TOOL_ARGS_INVALID" in done.stdout
    assert "in.jsonl:21" in done.stdout
    assert (tmp_path / "out" / "train.jsonl").exists()


def test_rejects_under_the_limit_exit_0(source: Path, tmp_path: Path) -> None:
    command = ("convert", source, "--from", "captions", "--to", "messages", "--out", tmp_path / "out")
    assert run(*command, "--max-rejects", "5%").returncode == 0
    again = run(*command, "--max-rejects", "1")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "captoins"), "did you mean 'captions'?"),
        (("--from", "captions", "--schema", "captio"), "did you mean 'caption'?"),
        (("--from", "captions", "-o", "imag=x"), "did you mean 'image'?"),
        (("--from", "captions", "--validation", "1"), "leave no training rows"),
        (("--from", "captions", "--images-per-row", "first"), "images_per_row: unknown key"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_2(
    source: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("convert", source, "--to", "messages", "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_help_ends_with_two_examples() -> None:
    from typer.main import get_command

    from dfkdata.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    for name in commands:
        shown = run(name, "--help").stdout
        assert shown.rpartition("Examples:")[2].count(f"dfkdata {name} ") >= 2, name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import dfkdata, sys; dfkdata.convert, dfkdata.read; print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "transformers", "datasets", "PIL", "numpy", "typer", "rich", "pyarrow"):
        assert f"'{heavy}'" not in names


def test_check_shows_what_convert_would_quarantine_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run("check", source, "--from", "captions")
    assert done.returncode == 1, done.stderr
    assert "TOOL_ARGS_INVALID" in done.stdout
    assert run("check", source, "--from", "captions", "--rule", "TOOL_ARGS_INVALID=warn").returncode == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_preview_prints_rows_as_turns(source: Path) -> None:
    done = run("preview", source, "--from", "captions", "--rows", "1")
    assert done.returncode == 0, done.stderr
    assert "user: A dog number 0." in done.stdout
    assert '"name":"emit_caption_schema"' in done.stdout


def test_schema_prints_the_json_schema_and_the_tool() -> None:

    facts = json.loads(run("schema", "caption").stdout)
    assert facts["tools"][0]["function"]["parameters"] == facts["json_schema"]
    assert facts["roles"]["setting"] == "Choice"
    assert run("schema", "captoin").returncode == 2


def test_a_card_shows_rows_with_pictures_and_escapes_them(tmp_path: Path) -> None:
    from tests.helpers.pictures import KINDS

    (tmp_path / "a.png").write_bytes(KINDS["png"])
    row = caption(1, image="a.png") | {"caption": "<script>alert(1)</script>"}
    source = write(tmp_path / "in.jsonl", [row, "broken"])
    run(
        "convert",
        source,
        "--from",
        "captions",
        "--to",
        "messages",
        "--out",
        tmp_path / "out",
        "--validation",
        "0",
    )
    done = run("card", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "card.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "BAD_JSON" in page
    assert run("card", tmp_path).returncode == 2


def test_the_options_of_convert_are_the_fields_of_its_options_object() -> None:
    from typer.main import get_command

    from dfkdata.cli.app import app
    from dfkdata.conversion.options import ConvertOptions

    command = get_command(app).commands["convert"]  # type: ignore[attr-defined]  # a group has commands
    options = {option.name: option for option in command.params}
    fields = ConvertOptions.model_fields
    assert options.keys() - {"help"} == (fields.keys() - {"progress"}) | {
        "input",
        "out",
        "images_per_row",
        "media_root",
        "allow",
        "private",
    }
    for name, option in options.items():
        if name in fields:
            assert option.help == fields[name].description, name
            assert option.required is (name in {"format", "to"}), name
    assert (options["seed"].default, options["max_rejects"].default) == (42, "0%")


def test_pairs_and_choices_of_the_command_line_reach_the_conversion(source: Path, tmp_path: Path) -> None:
    words = ("--from", "captions", "--to", "messages", "--out", tmp_path / "out", "--max-rejects", "100%")
    done = run(
        "convert", source, *words, "--rule", "ZERO_WIDTH=fix", "-o", "image=picture", "--nulls", "keep"
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "out" / "manifest.json").read_text())["config"]
    assert config["rules"] == {"ZERO_WIDTH": "fix"} and config["nulls"] == "keep"
    assert config["options"]["image"] == "picture"
    assert run("convert", source, *words, "--rule", "ZERO_WIDTH").returncode == 2
    assert "--to" in run("convert", source, "--from", "captions", "--out", tmp_path / "x").stderr
