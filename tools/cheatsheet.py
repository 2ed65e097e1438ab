"""Write docs/cheatsheet.md from the real commands: `python -m tools.cheatsheet`.

The choice of options and examples stands here; what each option does is its own help text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.main import get_command

from dfkdata.cli import app as dfkdata_app
from dfkeval.cli import app as dfkeval_app
from dfktrain.cli import app as dfktrain_app

PAGE = Path(__file__).parents[1] / "docs" / "cheatsheet.md"
PROGRAMS = {"dfkdata": dfkdata_app.app, "dfktrain": dfktrain_app.app, "dfkeval": dfkeval_app.app}

#: The options that are used most, in the order of the page.
OPTIONS = {
    "dfkdata convert": "--from --to --out --schema --images --validation --test --group-by --split-column --labels "
    "--max-rejects --where --limit --rule --materialize --paths --deep --overwrite",
    "dfkdata check": "--from --schema --images --deep",
    "dfkdata preview": "--from --rows --html --redact",
    "dfkdata diff": "--json",
    "dfkdata merge": "--out",
    "dfkdata card": "--out --redact",
    "dfktrain init": "--out --example",
    "dfktrain check": "--config-only --card --set --override",
    "dfktrain run": "--out --set --override --resume",
    "dfktrain sweep": "--out --vary --seeds",
    "dfktrain merge": "--adapter --out --base --probes",
    "dfktrain rft": "--out",
    "dfktrain push": "--to --dry-run --revision",
    "dfktrain demo": "--out --minutes",
    "dfkeval run": "--out --set",
    "dfkeval compare": "--html --csv --table",
    "dfkeval report": "--against --lang --redact",
    "dfkeval init": "--out",
    "dfkeval predict": "--model --adapter --image --field --input --from --out --schema --url --key --threshold --set",
    "dfkeval chat": "--model --adapter --system --image --url --key --backend --set",
    "dfkeval label": "--out --schema --url --model --prompt --validators --dry-run --max-cost",
    "dfkeval serve": "--model --adapter --url --host --port --token --limit",
    "dfkeval view": "--port --lang --redact",
    "dfkeval parse": "--schema",
}
_HEAD = """# Cheat sheet

All commands, and the options that are used most. `COMMAND --help` lists the others. This page is written from the
commands themselves by `python -m tools.cheatsheet`; a test compares the two.

| you want to | type |
|---|---|
| see the whole way | `dfktrain demo` |
| start with data of your own | `dfktrain init starter`, then [the tutorial](tutorial.md) |
| know what is wrong with data | `dfkdata check posts.csv --from auto` |
| make training rows | `dfkdata convert posts.csv --from dfk_csv --to messages --out data --test 0.2` |
| know what a run would do | `dfktrain check train.yaml` |
| train | `dfktrain run train.yaml --out runs/first` |
| change one key | `--set stages.0.learning_rate=1e-4` |
| try on the built-in model | `--override tiny` |
| score | `dfkeval run eval.yaml --out runs/tuned` |
| compare two runs | `dfkeval compare runs/base runs/tuned` |
| ask one question | `dfkeval predict --model tiny --adapter runs/first/adapter --image x.png --field title=Judul` |
| talk to a model | `dfkeval chat --model tiny --adapter runs/first/adapter` |
| answer over HTTP | `dfkeval serve --model tiny --adapter runs/first/adapter` |
| have one model instead of two folders | `dfktrain merge --adapter runs/first/adapter --out merged` |

Exit status: 0 done, 1 done but not well (rejects, failed requests, no valid answer), 2 wrong usage, data or
configuration.
"""


def commands() -> dict[str, Any]:
    """Return every command of the three programs by its full name."""
    return {
        f"{program} {name}": command
        for program, app in PROGRAMS.items()
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    }


def _first(text: str | None) -> str:
    """Return the first sentence or line of a help text, on one line, safe in a table."""
    return " ".join((text or "").partition("\n\n")[0].split()).replace("|", "\\|")


def _options(name: str, command: Any) -> list[str]:
    known = {word: option for option in command.params for word in option.opts}
    rows = []
    for word in OPTIONS.get(name, "").split():
        if word not in known:
            raise SystemExit(f"{name} has no option {word}; change OPTIONS in tools/cheatsheet.py")
        rows.append(f"| `{word}` | {_first(known[word].help)} |")
    return rows


def page() -> str:
    """Return the text of docs/cheatsheet.md."""
    lines, program = [_HEAD], ""
    for name, command in commands().items():
        if name.split()[0] != program:
            program = name.split()[0]
            lines.append(f"## {program}\n")
        lines.append(f"### {name}\n\n{_first(command.help)}\n")
        options = _options(name, command)
        if options:
            lines.append("\n".join(["| option | |", "|---|---|", *options]) + "\n")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
