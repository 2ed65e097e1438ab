"""Write the page of runs: the result in a sentence, comparisons, each run's numbers, and a browser over all samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from markupsafe import Markup

from dfkdata.pages import LineChart, Look, Words, difference_bar, interval_bar, line_chart, mask
from dfkeval.analysis import server_parser
from dfkeval.analysis.comparison import HEADLINES, Comparison
from dfkeval.reports import sample_sets
from dfkeval.reports.formatting import agrees, interval, number, p_value, signed, split, verdict_line
from dfkeval.reports.headline import headlines, metric_name
from dfkeval.reports.matrix import matrix
from dfkeval.reports.notices import notices
from dfkeval.reports.outcome_bar import outcome_bar
from dfkeval.reports.run_curves import calibration_curves, differences, without_probabilities
from dfkeval.reports.sample_sets import SampleSet
from dfkeval.runs import directory
from dfkeval.runs.run import Run
from dfkeval.types import NOT_ANSWERED

OPEN = 2
"""Comparisons that stand open; of more, each is folded."""
_FACTS = ("model", "adapter", "adapter_effect", "dtype", "device")


def page(
    title: str,
    runs: Sequence[Run],
    comparisons: Sequence[Comparison] = (),
    curves: Sequence[LineChart] = (),
    *,
    lang: str | None = None,
    redact: bool | None = None,
    extra: Mapping[str, tuple[str, Markup]] | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """Return one self-contained HTML document.

    Args:
        title: Title of the page.
        runs: The runs to show.
        comparisons: Comparisons, which come first.
        curves: Line charts of training.
        lang: Language of the page's words, "en" or "id"; None takes the last run's.
        redact: Whether handles, links, phone numbers and e-mail addresses are masked and pictures blurred; None
            takes the last run's.
        extra: Sections in front of all others: id -> (heading, content).
        links: Other pages, (address, text), with which the navigation begins.
    """
    parts = page_parts(title, runs, comparisons, curves, lang=lang, redact=redact, extra=extra, links=links)
    return "".join(parts)


def page_parts(
    title: str,
    runs: Sequence[Run],
    comparisons: Sequence[Comparison] = (),
    curves: Sequence[LineChart] = (),
    *,
    lang: str | None = None,
    redact: bool | None = None,
    extra: Mapping[str, tuple[str, Markup]] | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> Iterator[str]:
    """Yield the document that `page` returns, text by text, so that a page of many samples needs little memory."""
    redact = any(run.config.redact for run in runs[-1:]) if redact is None else redact
    look, extra = Look(lang or (runs[-1].config.lang if runs else "en"), redact=redact), extra or {}
    groups = sample_sets.sets_of(runs, redact=redact)
    folded = _folded(runs, comparisons)
    shown = [_run(run, place, look, redact) for place, run in enumerate(runs) if not folded[place]]
    others = [_run(run, place, look, redact) for place, run in enumerate(runs) if folded[place]]
    pairs = [_pair(f"c{at + 1}", pair, runs, look) for at, pair in enumerate(comparisons)]
    body = look.render(
        "dfkeval.reports",
        "report.html",
        title=title,
        lines=headlines(runs, comparisons, look.w),
        facts=_facts(runs, look.w),
        banners=_banners(runs, look.w),
        extra=extra,
        overviews=[_overview(group, look) for group in groups if len(group.runs) > 2],
        pairs=pairs,
        fold_pairs=len(pairs) > OPEN,
        shown=shown,
        others=others,
        curves=[line_chart(curve, look.w("values")) for curve in curves],
        setup=[(", ".join(run.name for run in group.runs), _setup(group, look)) for group in groups],
        n=sum(len(group.rows) for group in groups),
    )
    nav = [*links, *((place, heading) for place, (heading, _) in extra.items())]
    if len(pairs) > OPEN:
        nav.append(("comparisons", look.w("comparisons")))
    else:
        nav += [(pair["place"], f"{pair['pair'].a} → {pair['pair'].b}") for pair in pairs]
    nav += [(run["place"], run["name"]) for run in shown]
    rest = {"others": ("other_runs", others), "samples": ("samples", True), "curves": ("training", curves)}
    rest["setup"] = ("setup", groups)
    nav += [(place, look.w(word)) for place, (word, there) in rest.items() if there]
    return look.document_parts(title, body, nav=nav, scripts=_scripts(), data=_data(groups, look.w))


def _folded(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> list[bool]:
    """Return whether each run is folded: what others are compared with, and every run of many."""
    tuned = {pair.b for pair in comparisons}
    return [len(runs) > 2 * OPEN or bool(tuned and run.name not in tuned) for run in runs]


def _scripts() -> list[str]:
    return [
        resources.files("dfkeval.reports").joinpath(name).read_text(encoding="utf-8")
        for name in ("card.js", "browser.js")
    ]


def _data(groups: Sequence[SampleSet], w: Words) -> Iterator[tuple[str, Any]]:
    """Yield what the page's browser reads: the index, and chunks of texts and of pictures."""
    yield "report", {"sets": [sample_sets.index(group, w) for group in groups], "words": _words(w)}
    for at, group in enumerate(groups):
        for number_of_chunk, (rows, pictures) in enumerate(sample_sets.chunks(group)):
            yield f"rows-{at}-{number_of_chunk}", rows
            if pictures:
                yield f"pictures-{at}-{number_of_chunk}", pictures


def _words(w: Words) -> dict[str, str]:
    return {name.removeprefix("browser."): w(name) for name in w.keys_of("browser.")}


# --- the head ----------------------------------------------------------------------------------------------


def _facts(runs: Sequence[Run], w: Words) -> list[tuple[str, str]]:
    """Return data, model and date, each once for all runs."""
    columns = {
        w("data"): [str(run.config.data.name) for run in runs],
        w("model"): [_model(run) for run in runs],
        w("schema"): [run.schema.name for run in runs],
        w("date"): [_date(run) for run in runs],
    }
    return [
        (name, " · ".join(dict.fromkeys(filter(None, values))))
        for name, values in columns.items()
        if any(values)
    ]


def _model(run: Run) -> str:
    facts = run.environment.get("backend", {})
    return str(facts.get("model") or run.config.kind)


def _date(run: Run) -> str:
    """Return the day of the last answer; empty if no file tells."""
    for name in (directory.COMPLETIONS, directory.SUMMARY):
        path = run.folder / name
        if path.is_file():
            return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d")
    return ""


def _banners(runs: Sequence[Run], w: Words) -> list[tuple[str, str]]:
    """Return what a reader must know before any number, as (kind, sentence); runs that share one are named together."""
    named: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for banner in _banners_of(run, w):
            named.setdefault(banner, []).append(run.name)
    alone = len(runs) == 1
    return [(kind, text if alone else f"{', '.join(names)}: {text}") for (kind, text), names in named.items()]


def _banners_of(run: Run, w: Words) -> Iterator[tuple[str, str]]:
    counts, total = run.summary["outcomes"], run.summary["n"]
    failed = sum(counts.get(outcome, 0) for outcome in NOT_ANSWERED)
    without = sum(sample.gold is None for sample in run.samples)
    if failed:
        yield "bad", w("banner_failed", n=failed, total=total)
    if without:
        yield "warn", w("banner_gold", n=without, total=total)
    yield from (("warn", f"{sentence}.") for sentence in notices(run.summary, w))
    yield from (("note", line) for line in server_parser.lines(run.summary["details"]))


# --- comparisons -------------------------------------------------------------------------------------------


def _overview(group: SampleSet, look: Look) -> Markup:
    """Return a table of all runs of a set, the best value of each column marked."""
    first = group.runs[0]
    names = [name for name in HEADLINES if any(name in run.summary["metrics"] for run in group.runs)]
    lower = set(first.summary.get("lower_is_better", ()))
    best = {}
    for name in names:
        values = [
            run.summary["metrics"][name]["value"] for run in group.runs if name in run.summary["metrics"]
        ]
        known = [value for value in values if value is not None]
        best[name] = (min if name in lower else max)(known) if len(set(known)) > 1 else None
    rows = []
    for run in group.runs:
        cells: list[Any] = [run.name]
        for name in names:
            value = run.summary["metrics"].get(name, {}).get("value")
            text = number(value)
            cells.append(
                Markup("<strong>{} ★</strong>").format(text)
                if value is not None and value == best[name]
                else text
            )
        rows.append(cells)
    columns = [look.w("run"), *(f"#{metric_name(name, first, look.w)}" for name in names)]
    return Markup(look.ui.table(columns, rows, look.w("all_runs")))


def _pair(place: str, pair: Comparison, runs: Sequence[Run], look: Look) -> dict[str, Any]:
    first, rest = split(pair.differences)
    at = next((at for at, run in enumerate(runs) if run.name == pair.b), len(runs) - 1)
    before = next((at for at, run in enumerate(runs) if run.name == pair.a), 0)
    counts = {"better": 0, "worse": 0, "other": 0}
    for change in pair.changed:
        counts[turn(change)] += 1
    return {
        "place": place,
        "pair": pair,
        "line": verdict_line(pair, look.w),
        "table": _differences(pair, first, runs[at], look),
        "rest": _differences(pair, rest, runs[at], look) if rest else "",
        "n_rest": len(rest),
        "changed": [
            (kind, n, f"#run={at}&against={before}&changed={kind}") for kind, n in counts.items() if n
        ],
    }


def turn(change: Any) -> str:
    """Return whether a changed answer became "better" (right), "worse" (wrong) or "other"."""
    before, after = (agrees(sample) is True for sample in (change.before, change.after))
    return "other" if before == after else "worse" if before else "better"


def _differences(pair: Comparison, names: Sequence[str], run: Run, look: Look) -> Markup:
    w = look.w
    columns = [
        w("metric"),
        f"#{pair.a}",
        f"#{pair.b}",
        f"#{w('difference')}",
        w("interval"),
        "",
        "#p (Holm)",
        "#n",
        w("verdict"),
    ]
    rows = []
    for name in names:
        change = pair.differences[name]
        rows.append(
            (_named(name, run, w), number(change.a), number(change.b),
             Markup("<strong>{}</strong>").format(signed(change.value)),
             interval(change.low, change.high, True), _bar(change), p_value(change.p_holm), change.n,
             look.ui.mark(change.verdict, w.known(f"verdict.{change.verdict}", change.verdict)))
        )  # fmt: skip
    return Markup(look.ui.table(columns, rows, kind="differences", label=f"{pair.a} → {pair.b}"))


def _bar(change: Any) -> Markup:
    shown = change.verdict in ("better", "worse")
    return difference_bar(change.value, change.low, change.high, change.lower_is_better, shown=shown)


def _named(code: str, run: Run, w: Words) -> Markup | str:
    name = metric_name(code, run, w)
    return code if name == code else Markup('{}<code class="below">{}</code>').format(name, code)


# --- one run -----------------------------------------------------------------------------------------------


def _run(run: Run, place: int, look: Look, redact: bool) -> dict[str, Any]:
    first, rest = split(run.summary["metrics"])
    details = run.summary["details"]
    confusion = details.get("labels", {}).get("confusion")
    return {
        "place": f"r{place + 1}",
        "name": run.name,
        "chips": _chips(run, look.w),
        "metrics": _metrics(run, first, look),
        "rest": _metrics(run, rest, look) if rest else "",
        "n_rest": len(rest),
        "outcomes": outcome_bar(run, place, look),
        "confusion": matrix(confusion, place, look) if confusion else "",
        "curves": [
            line_chart(curve, look.w("values"))
            for curve in calibration_curves(details.get("calibration", {}))
        ],
        "unsure": without_probabilities(details.get("calibration", {})),
        "differing": [mask(line) if redact else line for line in differences(details.get("validity", {}))],
    }


def _metrics(run: Run, names: Sequence[str], look: Look) -> Markup:
    w, values = look.w, run.summary["metrics"]
    plain = run.summary.get("lower_is_better", ())  # a long bar would look good
    share = f"{run.summary.get('confidence', 0.95):.0%}"
    rows = [
        (_named(name, run, w), Markup("<strong>{}</strong>").format(number(m["value"])), interval(m["low"], m["high"]),
         "" if name in plain else interval_bar(m["value"], m["low"], m["high"]), m["n"])
        for name in names
        for m in [values[name]]
    ]  # fmt: skip
    return Markup(
        look.ui.table(
            [w("metric"), f"#{w('value')}", f"{share} {w('interval')}", "", "#n"], rows, w("metrics")
        )
    )


def _chips(run: Run, w: Words) -> list[str]:
    backend, made = run.environment.get("backend", {}), run.environment.get("generation", {})
    speed, first = made.get("output_tokens_per_second"), made.get("first_token_seconds")
    chips = [
        w("n_samples", n=run.summary["n"]),
        f"{w('schema')} {run.schema.name}",
        f"{w('backend')} {run.config.kind}",
    ]
    chips += [f"{w('mode')} {mode}" for mode in run.config.modes if mode != "free"]
    chips += [f"{key.replace('_', ' ')} {backend[key]}" for key in _FACTS if backend.get(key)]
    chips += [w("speed", n=f"{speed:.0f}")] if speed else []
    chips += [w("first_token", s=f"{first['median']:.2f}")] if first else []
    return [*chips, w("cached", n=made["cached"])] if made.get("cached") else chips


# --- how it was made ---------------------------------------------------------------------------------------


def _setup(group: SampleSet, look: Look) -> Markup:
    """Return the settings and versions of the runs of a set; what differs between runs is marked."""
    columns = [_settings(run) for run in group.runs]
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        texts = [column.get(key, "–") for column in columns]
        cells = [Markup("<mark>{}</mark>").format(text) if len(set(texts)) > 1 else text for text in texts]
        rows.append((len(set(texts)) == 1, [key, *cells]))
    rows.sort(key=lambda row: row[0])
    names = [f"*{run.name}" for run in group.runs]
    return Markup(look.ui.table([look.w("setting"), *names], [cells for _, cells in rows], group.schema.name))


def _settings(run: Run) -> dict[str, str]:
    facts: dict[str, Any] = {}
    for place, record in (("", run.config.record()), ("", run.environment)):
        facts |= _flat(record, place)
    return {key: str(value) for key, value in facts.items() if value not in (None, "", [], {}, ())}


def _flat(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{place}{key}.")
        else:
            flat[f"{place}{key}"] = value
    return flat
