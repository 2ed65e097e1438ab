"""Write a page about a converted data set: counts, labels, lengths, broken rules, rows with pictures.

One HTML file without scripts and without anything loaded from elsewhere. Every text of the data is escaped,
and a Content-Security-Policy forbids all but the styles and pictures inside the file."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.conversion.output_folder import Folder
from dfkdata.conversion.splits import SPLITS
from dfkdata.media.images import UnreadableImageError, thumbnail
from dfkdata.rows.messages import load_rows

_THUMB = (240, 240)
_SHOWN = (
    "Tools, turns and answer as they are written, sign for sign, with a mark where a picture stands. The model's chat "
    "template puts its control tokens around them: dfktrain check --card writes this page with rows as the model of a "
    "run sees them, and the card of a trained model holds the prompt."
)
_SEEN = (
    "Rows as {name} sees them, prompt and answer, byte for byte, by its chat template (sha256 {sha256}); a placeholder"
    " of a picture is repeated as often as the picture has tokens."
)


@dataclass(frozen=True)
class ModelView:
    """How a model sees rows.

    Attributes:
        name: What the page calls the model.
        template: Its chat template.
        sha256: The hash by which records of runs know the template.
        render: Returns a row as the text that the model sees; raises `DataError` for a row that it cannot read.
    """

    name: str
    template: str
    sha256: str
    render: Callable[[dict[str, Any]], str]


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src
'unsafe-inline'"> <style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color:
#1b1f24; }} table {{ border-collapse: collapse; margin: .5rem 0 1.5rem; }} td, th {{ padding: .2rem .8rem;
text-align: left; }} tr {{ border-bottom: 1px solid #d8dee4; }} td.n {{ text-align: right;
font-variant-numeric: tabular-nums; }} .bar {{ background: #2f6f9f; height: .8rem; }} .rows {{ display: grid;
gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }} article {{ border: 1px solid
#d8dee4; padding: .8rem; border-radius: 6px; overflow-wrap: anywhere; }} article img {{ max-width: 100%; }}
pre {{ white-space: pre-wrap; margin: .3rem 0; font: inherit; }} .role {{ color: #57606a; font-size: .85em; }}
pre.raw {{ font: 13px/1.45 ui-monospace, monospace; }}
mark {{ background: #d8e8f4; border-radius: 3px; padding: 0 .3em; }}
</style></head><body>
"""


def write_card(folder: Path, path: Path, *, samples: int = 12, view: ModelView | None = None) -> Path:
    """Write the page about a finished conversion to the messages layout.

    Args:
        folder: The folder that `convert` wrote.
        path: HTML file to write.
        samples: How many rows to show with their pictures, chosen by the hash of their ids.
        view: The model that the rows are for; None shows them as they are written.

    Returns:
        `path`.

    Raises:
        ConfigError: `folder` holds no finished conversion to the messages layout.
    """
    manifest = Folder(folder).manifest()
    if manifest is None or manifest["config"].get("to") != "messages":
        raise ConfigError(
            f"{folder}: no finished conversion to the messages layout; dfkdata convert writes one"
        )
    splits = [name for name in SPLITS if (folder / f"{name}.jsonl").exists()]
    lengths, chosen = _survey([folder / f"{name}.jsonl" for name in splits], samples)
    title = f"Data set {folder.resolve().name}"
    page = [_HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>"]
    page += [
        _table("Rows", manifest["rows"]),
        _table("Splits", {split: _rows(manifest, split) for split in splits}),
    ]
    for name, counts in manifest["labels"].items():
        page += [_bars(f"{name}: {split}", counts[split]) for split in ("raw", *splits) if counts.get(split)]
    page.append(_table("Length of rows in characters of text", lengths))
    for heading, entries in (("Quarantined", manifest["codes"]), ("Warnings", manifest["warnings"])):
        page.append(_broken(heading, entries))
    page.append(_prompt(view))
    page += ["<div class=rows>", *(_sample(row, view) for row in chosen), "</div></body></html>\n"]
    path.write_text("\n".join(page), encoding="utf-8")
    return path


def _rows(manifest: dict[str, Any], split: str) -> int:
    return next((int(entry["rows"]) for entry in manifest["outputs"] if entry["path"] == f"{split}.jsonl"), 0)


def _survey(paths: list[Path], samples: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Return quantiles of the rows' text lengths, and the rows with the smallest hashes."""
    lengths: list[int] = []
    best: list[tuple[str, int, dict[str, Any]]] = []
    for number, row in enumerate(row for path in paths for row in load_rows(path)):
        lengths.append(sum(len(text) for text in _texts(row)))
        name = sha256(str(row["id"]).encode()).hexdigest()
        best = heapq.nsmallest(samples, [*best, (name, number, row)]) if _joins(best, name, samples) else best
    lengths.sort()
    marks = {"least": 0.0, "a quarter": 0.25, "half": 0.5, "three quarters": 0.75, "95 %": 0.95, "most": 1.0}
    quantiles = {
        name: lengths[min(int(mark * len(lengths)), len(lengths) - 1)]
        for name, mark in marks.items()
        if lengths
    }
    return quantiles, [row for _, _, row in best]


def _joins(best: list[tuple[str, int, dict[str, Any]]], name: str, samples: int) -> bool:
    return len(best) < samples or (bool(best) and name < best[-1][0])


def _texts(row: dict[str, Any]) -> Iterator[str]:
    return (part["text"] for turn in row["messages"] for part in turn["content"] if part["type"] == "text")


def _table(heading: str, counts: dict[str, int]) -> str:
    lines = (f"<tr><th>{escape(name)}</th><td class=n>{number}</td></tr>" for name, number in counts.items())
    return f"<h2>{escape(heading)}</h2><table>{''.join(lines)}</table>"


def _bars(heading: str, counts: dict[str, int]) -> str:
    most = max(counts.values())
    lines = (
        f"<tr><th>{escape(name)}</th><td class=n>{number}</td>"
        f'<td><div class=bar style="width:{round(240 * number / most)}px"></div></td></tr>'
        for name, number in counts.items()
    )
    return f"<h2>{escape(heading)}</h2><table>{''.join(lines)}</table>"


def _broken(heading: str, entries: dict[str, Any]) -> str:
    lines = (
        f"<tr><th>{escape(code)}</th><td class=n>{entry['count']}</td>"
        f"<td>{escape(entry['first']['source'])}: {escape(entry['first']['reason'])}</td></tr>"
        for code, entry in entries.items()
    )
    return f"<h2>{escape(heading)}</h2><table>{''.join(lines) or '<tr><td>none</td></tr>'}</table>"


def _prompt(view: ModelView | None) -> str:
    if view is None:
        return f"<h2>Rows</h2><p>{_SHOWN}</p>"
    says = _SEEN.format(name=escape(view.name), sha256=escape(view.sha256))
    template = (
        f"<details><summary>Chat template</summary><pre class=raw>\n{escape(view.template)}</pre></details>"
    )
    return f"<h2>Rows</h2><p>{says}</p>{template}"


def _seen(row: dict[str, Any], view: ModelView) -> str:
    try:
        return f"<div class=role>as the model sees it</div><pre class=raw>\n{escape(view.render(row))}</pre>"
    except DataError as error:
        return f"<p>cannot be trained on: {escape(str(error))}</p>"


def _sample(row: dict[str, Any], view: ModelView | None) -> str:
    pictures = "".join(_picture(image) for image in row["images"])
    shown = _turns(row) if view is None else _seen(row, view)
    return f"<article>{pictures}{shown}<div class=role>{escape(str(row['id']))}</div></article>"


def _turns(row: dict[str, Any]) -> str:
    turns = [_block("tools", escape(_json(row["tools"])))] if row.get("tools") else []
    for turn in row["messages"]:
        shown = "".join(map(_part, turn["content"] or ()))
        calls = [_block("call", escape(_json(call["function"]))) for call in turn.get("tool_calls", ())]
        turns += [_block(turn["role"], shown), *calls]
    return "".join(turns)


def _block(role: str, shown: str) -> str:
    return f"<div class=role>{escape(role)}</div><pre>\n{shown}</pre>"


def _part(part: dict[str, Any]) -> str:
    """Return a part of a turn: its text, sign for sign, or a mark where the model sees a picture or a video."""
    return escape(part["text"]) if part["type"] == "text" else f"<mark>{escape(part['type'])}</mark>"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _picture(path: str) -> str:
    return f'<img alt="" src="{_thumb(path)}">'


def _thumb(path: str) -> str:
    """Return a small JPEG of the picture as a `data:` URI, empty if the file is gone."""
    try:
        return thumbnail(path, _THUMB, quality=70).uri
    except UnreadableImageError:
        return ""
