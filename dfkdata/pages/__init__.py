"""Draw every HTML page: one look, one policy, one table of words.

How to write a page:

    from dfkdata import pages

    look = pages.Look(lang="en")
    body = look.render("dfktrain.reports", "training.html", stages=stages)   # of its folder `templates`
    text = look.document("Training of run 7", body, nav=[("loss", "Loss"), ("answers", "Answers")])

A template is Jinja with autoescape; a missing variable is an error. It finds these names:

    w("skip")                a word or sentence of `words.yaml` in the page's language; w("n_samples", n=3) fills in
    ui.banner(text, kind)    "warn" (default), "bad", "good" or "note"
    ui.facts(pairs)          (name, text) pairs as a list of facts
    ui.badge(text, kind)     "good", "bad", "warn", "none"; ui.mark(verdict) is the sign of a comparison
    ui.table(columns, rows, caption, kind, label)   columns are names, "#name" is right-aligned numbers, "*name" may
                             wrap; a row's first cell is its header; cells are text, or Markup of another element
    ui.fold(title, open)     a folded part: {% call ui.fold("More") %} ... {% endcall %}
    picture(path, redact=…)  a thumbnail that enlarges on a click, or a blurred one
    line_chart(chart), bars(title, names, series), histogram(title, values, unit), interval_bar, difference_bar

Text of people goes through `mask` (or `masked`, for values) where `--redact` is given.

The same elements are methods of `look.ui`, for code without a template; they return `Markup`, which is not
escaped again. What stands in `style.css` is all the CSS: classes `panel`, `chips`, `quiet`, `columns` (that
wrap) and the elements above are enough for a page; add to that file, not to your template. `page.js` gives hover
values to charts, enlarges pictures, marks the section in the navigation and unfolds everything for print. A page with
a script of its own passes its text (`scripts=[...]`) and its values (`data={"name": value}`, read with
`JSON.parse(document.getElementById("data-name").textContent)`).

`Look(redact=True)` masks personal data in a whole page and blurs its pictures (`redaction`); text that is cut into
pieces before it reaches the page has to be masked before it is cut.

Guarantees:

- Everything that is not `Markup` is escaped.
- A page loads nothing, and its Content-Security-Policy allows its own style and scripts by their hashes only: no
  `style=` and `on...=` attributes work, so use classes and SVG attributes.
- Text has a contrast of at least 4.5 in light and dark."""

from __future__ import annotations

from dfkdata.pages.axes import ticks
from dfkdata.pages.bar_charts import bars, difference_bar, histogram, interval_bar
from dfkdata.pages.charts import LineChart, line_chart
from dfkdata.pages.look import Look
from dfkdata.pages.pictures import picture
from dfkdata.pages.redaction import mask, masked
from dfkdata.pages.words import LANGUAGES, Language, Words

__all__ = [
    "LANGUAGES",
    "Language",
    "LineChart",
    "Look",
    "Words",
    "bars",
    "difference_bar",
    "histogram",
    "interval_bar",
    "line_chart",
    "mask",
    "masked",
    "picture",
    "ticks",
]
