"""Make documents of templates: the skeleton, the policy, the shared elements."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import msgspec
from markupsafe import Markup

from dfkdata.pages import bar_charts, charts, pictures, redaction
from dfkdata.pages.words import Words

PLAIN = 500_000
"""Bytes of JSON above which a block of data is compressed."""
PROBE = 100_000
"""Bytes at the start of a large block that show whether compression helps; pictures are compressed already."""


class Look:
    """The look of a page in one language.

    Args:
        lang: Language of its words, "en" or "id".
        redact: Whether personal data is masked and pictures are blurred, see `dfkdata.pages.redaction`.

    Raises:
        ConfigError: There are no words of this language.

    Example:
        >>> from dfkdata.pages import Look
        >>> look = Look()
        >>> str(look.ui.badge("<b>", "good"))
        '<span class="badge good">&lt;b&gt;</span>'
        >>> look.document("Report", look.ui.banner("3 rows are missing")).startswith("<!doctype html>")
        True
    """

    def __init__(self, lang: str = "en", *, redact: bool = False) -> None:
        self.w = Words(lang)
        self.lang = lang
        self.redact = redact

    @property
    def ui(self) -> Any:
        """The elements of `parts.html` as functions that return `Markup`."""
        return _environment("dfkdata.pages").get_template("pages/parts.html").make_module({"w": self.w})

    def render(self, package: str, template: str, /, **values: Any) -> Markup:
        """Return a template of a package's folder `templates` with values in it.

        Args:
            package: The package, such as "dfkeval.reports".
            template: Name of the file.
            values: What the template reads, besides `w`, `ui` and the charts.
        """
        text = _environment(package).get_template(template).render(w=self.w, ui=self.ui, **values)
        return Markup(text)  # the template has escaped it

    def document(
        self,
        title: str,
        body: Markup,
        *,
        nav: Sequence[tuple[str, str]] = (),
        scripts: Sequence[str] = (),
        data: Mapping[str, Any] | None = None,
        refresh_s: int | None = None,
        served: bool = False,
    ) -> str:
        """Return a self-contained page.

        Args:
            title: Its title.
            body: The content of `<main>`.
            nav: (id, text) of the sections that the navigation names; an id with a slash is another page.
            scripts: Texts of scripts that run after `page.js`.
            data: Name -> value for the scripts, written into elements called "data-NAME" as `packed` writes it.
            refresh_s: Seconds after which a browser reads the page again; None for never.
            served: Whether a server shows the page, which then may load pictures and data from that server.
        """
        blocks = (data or {}).items()
        parts = self.document_parts(
            title, body, nav=nav, scripts=scripts, data=blocks, refresh_s=refresh_s, served=served
        )
        return "".join(parts)

    def document_parts(
        self,
        title: str,
        body: Markup,
        *,
        nav: Sequence[tuple[str, str]] = (),
        scripts: Sequence[str] = (),
        data: Iterable[tuple[str, Any]] = (),
        refresh_s: int | None = None,
        served: bool = False,
    ) -> Iterator[str]:
        """Yield a page text by text, for pages whose data is large.

        Args:
            title: As for `document`, like `body`, `nav`, `scripts`, `refresh_s` and `served`.
            data: Names and values as for `document`; each is read when its turn comes.
        """
        style, every = asset("style.css"), [asset("page.js"), *scripts]
        if self.redact:
            note = self.ui.banner(self.w("redacted"), "note")
            title, body = redaction.mask(title), Markup(redaction.mask_html(note + body))
            nav = [(place, redaction.mask(text)) for place, text in nav]
            data = ((name, redaction.masked(value)) for name, value in data)
        policy = {
            "default-src": "'none'",
            "img-src": "'self' data:" if served else "data:",
            "style-src": _hashes([style]),
            "script-src": _hashes(every),
            "base-uri": "'none'",
            "form-action": "'none'",
        } | ({"connect-src": "'self'"} if served else {})
        parts: Iterator[str] = (
            _environment("dfkdata.pages")
            .get_template("pages/page.html")
            .generate(
                w=self.w, title=title, body=body, nav=[(_link(place), text) for place, text in nav],
                policy=Markup("; ".join(f"{name} {value}" for name, value in policy.items())), refresh_s=refresh_s,
                style=Markup(style), scripts=[Markup(script) for script in every],  # files of this package
                blocks=((name, _block(value)) for name, value in data),
            )
        )  # fmt: skip
        return parts


def packed(value: Any) -> str:
    """Return a value as JSON that may stand in an element; compressed and in base64 if it is large and that helps.

    A script tells the two apart by the first sign: compressed text begins with "z", JSON never does.
    """
    plain = msgspec.json.encode(value)
    if len(plain) <= PLAIN or len(_squeezed(plain[:PROBE])) > 0.8 * PROBE:
        return _safe(plain)
    return "z" + _squeezed(plain)


def _squeezed(plain: bytes) -> str:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(squeeze.compress(plain) + squeeze.flush()).decode()


def asset(name: str) -> str:
    """Return the text of a file of this room."""
    return resources.files("dfkdata.pages").joinpath(name).read_text(encoding="utf-8")


def _block(value: Any) -> Markup:
    return Markup(packed(value))  # no "<" is left in it


def _safe(json: bytes) -> str:
    """Return JSON without signs that could end the element that it stands in."""
    return json.decode().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _link(place: str) -> str:
    return place if "/" in place or "." in place else f"#{place}"


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


@cache
def _environment(package: str) -> Any:
    """Return the templates of a package, which is loaded only if a page is written."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

    loaders = {"pages": PackageLoader("dfkdata.pages")}
    own = [] if package == "dfkdata.pages" else [PackageLoader(package)]
    made = Environment(
        loader=ChoiceLoader([PrefixLoader(loaders), *own]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= {
        "line_chart": charts.line_chart,
        "bars": bar_charts.bars,
        "histogram": bar_charts.histogram,
        "interval_bar": bar_charts.interval_bar,
        "difference_bar": bar_charts.difference_bar,
        "picture": pictures.picture,
    }
    return made
