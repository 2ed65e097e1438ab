"""Write the pages of a folder of runs: the list with its history, one run, runs compared, and a run that goes on."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from markupsafe import Markup

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.pages import LineChart, Look, Words, line_chart, mask
from dfkeval.analysis import comparison, history
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.reports.formatting import number, signed
from dfkeval.reports.page import page
from dfkeval.reports.viewing.found import FoundRun, runs_below
from dfkeval.runs import directory
from dfkeval.runs.run import load_run
from dfkeval.types import Completion

NEWEST = 30
"""Answers of a run that goes on which its page shows."""
TAIL = 1 << 18
"""Bytes at the end of its file in which they are looked for."""
KEPT = 8
"""Pages that are kept until a file of their runs changes."""
DRAWN = 6
"""Values in the plot of a history."""


class Viewer:
    """The pages over the runs below some folders.

    Args:
        folders: The folders.
        lang: Language of the words; None takes English for the list and each run's own for its page.
        redact: Whether personal data is masked on every page.
    """

    def __init__(self, folders: Sequence[Path], lang: str | None = None, *, redact: bool = False) -> None:
        self.folders, self.lang, self.redact = list(folders), lang, redact
        self._pages: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def runs(self) -> dict[str, FoundRun]:
        """Return name -> run, as they lie on disk now."""
        return {run.name: run for run in runs_below(self.folders)}

    def state(self, names: Sequence[str] = ()) -> str:
        """Return a text that changes if a file of these runs does, of all runs without names."""
        runs = [run for run in self.runs().values() if not names or run.name in names]
        return hashlib.sha256(msgspec.json.encode([(run.name, run.stamp) for run in runs])).hexdigest()[:16]

    # --- one run, and several ----------------------------------------------------------------------------

    def run(self, run: FoundRun) -> str:
        """Return the page of a run; of one without a summary, its newest answers.

        Raises:
            DataError: A file of the run is damaged.
            ConfigError: Its configuration cannot be used here.
        """
        if not run.is_scored:
            return self._unfinished(run)
        return self._kept((run.name, run.stamp), lambda: self._report([run], compare=False))

    def comparison(self, runs: Sequence[FoundRun]) -> str:
        """Return the page of several runs, each compared with the first.

        Raises:
            DataError: A file of a run is damaged, or the runs have no rows in common.
            ConfigError: The runs cannot be compared.
        """
        key = tuple((run.name, run.stamp) for run in runs)
        return self._kept(key, lambda: self._report(runs, compare=True))

    def _report(self, runs: Sequence[FoundRun], *, compare: bool) -> str:
        loaded = []
        for found in runs:
            run = load_run(found.folder)
            run.title = found.name
            loaded.append(run)
        pairs = comparison.compare_all(loaded[0], loaded[1:]) if compare else []
        lang = self.lang or loaded[-1].config.lang
        return page(
            " · ".join(run.name for run in loaded), loaded, pairs, lang=lang, redact=self.redact or None,
            links=[("/", Look(lang).w("view_all"))],
        )  # fmt: skip

    def _kept(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]
        text = make()
        with self._lock:
            self._pages[key] = text
            while len(self._pages) > KEPT:
                self._pages.popitem(last=False)
        return text

    def _unfinished(self, run: FoundRun) -> str:
        look = Look(self.lang or "en", redact=self.redact)
        count, newest = answers(run.folder)
        rows = []
        for answer in newest:
            text = mask(answer.text) if self.redact else answer.text
            rows.append((answer.id, Markup('<div class="text">{}</div>').format(text)))
        body = look.render(
            "dfkeval.reports", "unfinished.html", name=run.name, count=count, rows=rows,
            since=_when(run.stamp[6]), columns=["id", f"*{look.w('answer')}"],
        )  # fmt: skip
        return self._document(look, run.name, body, run.name)

    # --- the list ------------------------------------------------------------------------------------------

    def index(self) -> str:
        """Return the page that lists all runs, with the history of those on the same rows."""
        look = Look(self.lang or "en", redact=self.redact)
        runs = list(self.runs().values())
        groups, broken = self._groups([run for run in runs if run.is_scored], look)
        going = [
            (_link(run), answers(run.folder)[0], _when(run.stamp[6])) for run in runs if not run.is_scored
        ]
        body = look.render(
            "dfkeval.reports", "runs.html", groups=groups, going=going, broken=broken, n=len(runs),
            folders=", ".join(folder.resolve().name for folder in self.folders),
        )  # fmt: skip
        return self._document(look, look.w("view_runs"), body, "")

    def _document(self, look: Look, title: str, body: Markup, name: str) -> str:
        script = resources.files("dfkeval.reports").joinpath("view.js").read_text(encoding="utf-8")
        address = "/state" + (f"?{urlencode({'run': name})}" if name else "")
        data = {"view": {"address": address, "state": self.state([name] if name else ())}}
        nav = [("/", look.w("view_all"))] if name else []
        return look.document(title, body, nav=nav, scripts=[script], data=data, served=True)

    def _groups(
        self, runs: Sequence[FoundRun], look: Look
    ) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        """Return the runs by the rows that they were asked, oldest first, and what is wrong with others."""
        groups: dict[tuple[str, str, str], list[tuple[FoundRun, dict[str, Any], str]]] = {}
        broken = []
        for run in sorted(runs, key=lambda run: (history.answered_at(run.folder), run.name)):
            try:
                record = directory.RunDirectory(run.folder).config()
                summary = directory.read_summary(run.folder)
                config = record["config"]
                model = config["backend"].get("model") or config["backend"]["kind"]
                key = (str(config["schema"]), str(record["data_sha256"]), Path(str(config["data"])).name)
            except (DataError, ConfigError, KeyError, TypeError, AttributeError) as error:
                broken.append((run.name, f"{type(error).__name__}: {error}"))
                continue
            groups.setdefault(key, []).append((run, summary, str(model)))
        return [
            self._group(f"{schema} · {data}", rows, look) for (schema, _, data), rows in groups.items()
        ], broken

    def _group(
        self, title: str, runs: Sequence[tuple[FoundRun, dict[str, Any], str]], look: Look
    ) -> dict[str, Any]:
        w = look.w
        codes = [code for code in HEADLINES if any(code in summary["metrics"] for _, summary, _ in runs)]
        before: dict[str, float] = {}
        rows, series = [], dict[str, list[tuple[float, float]]]()
        for at, (run, summary, model) in enumerate(runs):
            cells: list[Any] = [_pick(run, w("view_pick", name=run.name)), summary["n"]]
            for code in codes:
                value = summary["metrics"].get(code, {}).get("value")
                cells.append(_trend(value, before.get(code)))
                if value is not None:
                    before[code] = value
                    series.setdefault(_name(code, w), []).append((at, value))
            rows.append([*cells, model, _when(run.stamp[6] or run.stamp[2])])
        names = [_name(code, w) for code in codes]
        columns = [w("run"), "#n", *(f"#{name}" for name in names), w("model"), w("date")]
        shown = dict(list(series.items())[:DRAWN])
        chart = LineChart(
            title, shown, x=w("run"), y=w("value"), marked=tuple(shown),
            categories=[run.name.rsplit("/", 1)[-1] for run, _, _ in runs],
        )  # fmt: skip
        return {
            "title": title,
            "n": len(runs),
            "table": look.ui.table(columns, rows, label=title),
            "chart": line_chart(chart, w("values")) if len(runs) > 1 else "",
        }


def answers(folder: Path) -> tuple[int, list[Completion]]:
    """Return how many answers a run has got so far and the newest of them, without a line that is being written."""
    path = folder / directory.COMPLETIONS
    try:
        with path.open("rb") as file:
            count = sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))
            start = max(0, file.tell() - TAIL)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:
        return 0, []
    whole = lines[1 if start else 0 : -1]
    newest = []
    for line in reversed(whole[-NEWEST:]):
        try:
            newest.append(msgspec.json.decode(line, type=Completion))
        except msgspec.MsgspecError:
            continue
    return count, newest


def _name(code: str, w: Words) -> str:
    """Return what people call a value; the list knows no forms, and takes the name that fits every one."""
    return w.known(f"metric.{code}", w.known(f"metric.{code}.text", code))


def _link(run: FoundRun) -> Markup:
    return Markup('<a href="/run/{}">{}</a>').format(quote(run.name), run.name)


def _pick(run: FoundRun, label: str) -> Markup:
    box = Markup('<input type="checkbox" name="run" value="{}" aria-label="{}"> ').format(run.name, label)
    return box + _link(run)


def _trend(value: float | None, before: float | None) -> str | Markup:
    if value is None or before is None or number(value) == number(before):
        return number(value)
    return Markup('{} <span class="quiet">{}</span>').format(number(value), signed(value - before))


def _when(nanoseconds: int) -> str:
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
