"""Write the HTML page: comparisons first, then each run with metrics, outcomes, confusion matrix and sample cards."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from dfkeval.analysis import server_parser
from dfkeval.analysis.comparison import Comparison
from dfkeval.reports import sample_cards
from dfkeval.reports.charts import Curve, difference_bar, interval_bar, line_chart, share_bar
from dfkeval.reports.formatting import interval, number, p_value, signed, split, verdict_line
from dfkeval.reports.notices import notices
from dfkeval.reports.run_curves import calibration_curves, differences, without_probabilities
from dfkeval.runs.run import Run
from dfkeval.types import OUTCOMES

CARDS = 24
CHANGED = 8


def page(
    title: str,
    runs: Sequence[Run],
    comparisons: Sequence[Comparison] = (),
    curves: Sequence[Curve] = (),
    *,
    cards: int = CARDS,
) -> str:
    """Return one self-contained HTML document.

    Args:
        title: Title of the page.
        runs: The runs to show.
        comparisons: Comparisons, which come first.
        curves: Line charts of training, which come next.
        cards: Most sample cards of one run.
    """
    body = [_head(title, runs, comparisons, curves)]
    body += [_comparison(item, _place("c", at)) for at, item in enumerate(comparisons)]
    if curves:
        body.append(
            '<section id="curves"><h2>Training</h2>' + "".join(map(line_chart, curves)) + "</section>"
        )
    body += [_run(run, cards, _place("r", at)) for at, run in enumerate(runs)]
    body.append(
        "<footer>Intervals: exact at the effective number of rows, over groups of samples. Answers that could "
        "not be read count as 0 in every metric; failed requests are counted apart.</footer>"
    )
    return document(title, "\n".join(body))


def document(title: str, body: str, *, refresh_s: int | None = None) -> str:
    """Return a self-contained page in the reports' style, which loads nothing and runs no script.

    Args:
        title: Its title, as text.
        body: HTML that is escaped already.
        refresh_s: Seconds after which a browser reads the page again; None for never.
    """
    style = resources.files("dfkeval.reports").joinpath("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    again = f'<meta http-equiv="refresh" content="{refresh_s}">\n' if refresh_s else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{again}'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body><main>\n"
        f"{body}\n</main></body>\n</html>\n"
    )


def _head(title: str, runs: Sequence[Run], comparisons: Sequence[Comparison], curves: Sequence[Curve]) -> str:
    links = [(_place("c", at), f"{item.a} → {item.b}") for at, item in enumerate(comparisons)]
    links += [("curves", "Training")] if curves else []
    links += [(_place("r", at), run.name) for at, run in enumerate(runs)]
    nav = "".join(f'<a href="#{place}">{escape(text)}</a>' for place, text in links)
    return f"<header><h1>{escape(title)}</h1><nav>{nav}</nav></header>"


def _place(kind: str, at: int) -> str:
    """Return the id of a section; runs may have equal names, and names without ASCII letters."""
    return f"{kind}{at + 1}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Return a table of cells that are HTML already; a leading "#" marks numbers."""
    head = "".join(
        f'<th class="num">{cell[1:]}</th>' if cell.startswith("#") else f"<th>{cell}</th>" for cell in header
    )
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(cell: str) -> str:
    return f'<td class="num">{cell[1:]}</td>' if cell.startswith("#") else f"<td>{cell}</td>"


def _comparison(comparison: Comparison, place: str) -> str:
    first, rest = split(comparison.differences)
    more = _fold(f"{len(rest)} more values", _panel(_differences(comparison, rest))) if rest else ""
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in comparison.notes)
    shown = sorted(comparison.changed, key=sample_cards.turn, reverse=True)[:CHANGED]
    cards = "".join(sample_cards.pair_card(change, comparison.a, comparison.b) for change in shown)
    won, lost = ([sample_cards.turn(change) for change in comparison.changed].count(kind) for kind in (1, 2))
    turned = f" ({won} became right, {lost} wrong)" if won or lost else ""
    title = f"{len(shown)} of {len(comparison.changed)} changed answers{turned}"
    changed = _fold(title, f'<div class="cards pairs">{cards}</div>')
    return (
        f'<section id="{place}">'
        f"<h2>{escape(comparison.a)} → {escape(comparison.b)} "
        f'<span class="quiet">{escape(verdict_line(comparison))}</span></h2>'
        f"{_panel(_differences(comparison, first))}{more}{notes}{changed if shown else ''}</section>"
    )


def _differences(comparison: Comparison, names: Sequence[str]) -> str:
    header = (
        "metric",
        f"#{escape(comparison.a)}",
        f"#{escape(comparison.b)}",
        "#difference",
        "interval",
        "",
        "#p (Holm)",
        "#n",
        "verdict",
    )
    rows = []
    for name in names:
        change = comparison.differences[name]
        verdict = comparison.verdict(name)
        mark = {"better": "good", "worse": "bad"}.get(verdict, "")
        rows.append(
            (escape(name), "#" + number(change.a), "#" + number(change.b),
             f"#<strong>{signed(change.value)}</strong>",
             interval(change.low, change.high, True),
             difference_bar(change.value, change.low, change.high, change.lower_is_better),
             "#" + escape(p_value(change.p_holm)), f"#{change.n}",
             f'<span class="badge {mark}">{verdict}</span>')
        )  # fmt: skip
    return _table(header, rows, "differences")


def _run(run: Run, cards: int, place: str) -> str:
    first, rest = split(run.summary["metrics"])
    more = _fold(f"{len(rest)} more values", _panel(_metrics(run, rest))) if rest else ""
    confusion = run.summary["details"].get("labels", {}).get("confusion")
    chosen = sample_cards.chosen(run.samples, cards)
    grid = "".join(map(sample_cards.card, chosen))
    return (
        f'<section id="{place}"><h2>{escape(run.name)}</h2>{_notices(run)}{_chips(run)}'
        f"<h3>Metrics</h3>{_panel(_metrics(run, first))}{more}"
        f"<h3>Outcomes</h3>{_panel(_outcomes(run))}{_server(run)}"
        + (f"<h3>Confusion matrix</h3>{_panel(_confusion(confusion))}" if confusion else "")
        + _calibration(run)
        + _differing(run)
        + _fold(
            f"{len(chosen)} of {len(run.samples)} samples", f'<div class="cards">{grid}</div>', opened=True
        )
        + "</section>"
    )


def _notices(run: Run) -> str:
    return "".join(f'<p class="notice">{escape(notice)}.</p>' for notice in notices(run.summary))


def _server(run: Run) -> str:
    """Return what the server's own parser did; empty if it did nothing."""
    return "".join(f"<p>{escape(line)}</p>" for line in server_parser.lines(run.summary["details"]))


def _calibration(run: Run) -> str:
    details = run.summary["details"].get("calibration", {})
    charts = "".join(map(line_chart, calibration_curves(details)))
    note = without_probabilities(details)
    note = f'<p class="quiet">{note}</p>' if note else ""
    return f'<h3>Confidence</h3>{note}<div class="charts">{charts}</div>' if charts else ""


def _differing(run: Run) -> str:
    lines = differences(run.summary["details"].get("validity", {}))
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    title = "JSON Schema and answer class differ"
    return f'<h3>{title}</h3><ul class="problems">{items}</ul>' if items else ""


def _chips(run: Run) -> str:
    backend = run.environment.get("backend", {})
    made = run.environment.get("generation", {})
    speed, first = made.get("output_tokens_per_second"), made.get("first_token_seconds")
    count = run.summary["n"]
    facts = [
        f"{count} sample{'' if count == 1 else 's'}",
        f"schema {run.schema.name}",
        f"backend {run.config.kind}",
    ]
    facts += [f"mode {mode}" for mode in run.config.modes if mode != "free"]
    told = ("model", "adapter", "adapter_effect", "dtype", "device")
    facts += [f"{key.replace('_', ' ')} {backend[key]}" for key in told if backend.get(key)]
    facts += [f"{speed:.0f} tokens/s"] if speed else []
    facts += [f"first token after {first['median']:.2f} s"] if first else []
    facts += [f"{made['cached']} from the cache"] if made.get("cached") else []
    return (
        '<div class="chips">'
        + "".join(f'<span class="chip">{escape(fact)}</span>' for fact in facts)
        + "</div>"
    )


def _metrics(run: Run, names: Sequence[str]) -> str:
    metrics = run.summary["metrics"]
    plain = run.summary.get("lower_is_better", ())  # a long bar would look good
    share = f"{run.summary.get('confidence', 0.95):.0%}"
    rows = [
        (escape(name), f"#<strong>{number(m['value'])}</strong>", interval(m["low"], m["high"]),
         "" if name in plain else interval_bar(m["value"], m["low"], m["high"]), f"#{m['n']}")
        for name in names
        for m in [metrics[name]]
    ]  # fmt: skip
    return _table(("metric", "#value", f"{share} interval", "", "#n"), rows, "metrics")


def _outcomes(run: Run) -> str:
    total, counts = run.summary["n"], run.summary["outcomes"]
    rows = [
        (
            f'<span class="badge {sample_cards.kind(name)}">{name}</span>',
            f"#{count}",
            f"#{count / total:.1%}",
            escape(OUTCOMES[name]),
        )
        for name, count in counts.items()
    ]
    bar = share_bar([(sample_cards.kind(name), count / total) for name, count in counts.items()])
    return bar + _table(("outcome", "#samples", "#share", "meaning"), rows)


def _confusion(matrix: dict[str, Any]) -> str:
    names = [escape(name.strip("<>")) for name in matrix["labels"]]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = ""
    for name, row in zip(names, matrix["matrix"], strict=False):
        total = sum(row) or 1
        cells = "".join(f'<td class="h{_heat(count / total)}">{count}</td>' for count in row)
        body += f'<tr><td class="row">{name}</td>{cells}</tr>'
    corner = "<th>gold ↓ &nbsp; answer →</th>"
    return f'<table class="confusion"><thead><tr>{corner}{head}</tr></thead><tbody>{body}</tbody></table>'


def _heat(share: float) -> int:
    """Return 0 for nothing, else 1 to 5 by the share."""
    return 0 if share == 0 else min(5, 1 + int(share * 5))


def _panel(inner: str) -> str:
    return f'<div class="panel">{inner}</div>'


def _fold(title: str, inner: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{inner}</details>"
