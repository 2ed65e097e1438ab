"""Hold one text and its views, each of which is made when it is first needed."""

from __future__ import annotations

from functools import cached_property

from dfkeval.parsing.coercion import Dialect
from dfkeval.parsing.toolcall._allowance import Allowance
from dfkeval.parsing.toolcall._fast_path import Canonical
from dfkeval.parsing.toolcall._fences import Fences
from dfkeval.parsing.toolcall._machine import Machine
from dfkeval.parsing.toolcall._scanner import Lookahead
from dfkeval.parsing.toolcall._tags import Tags
from dfkeval.parsing.toolcall._tools import Tool


class SourceText:
    """A text, its tools, and its views: tags, code, look-aheads, calls."""

    def __init__(
        self, text: str, tools: dict[str, Tool], anything: Tool | None, dialect: Dialect, finished: bool
    ) -> None:
        self.text = text
        self.tools = tools
        self.anything = anything
        self.dialect: Dialect = dialect
        self.finished = finished
        self.allowance = Allowance(len(text))

    @cached_property
    def tags(self) -> Tags:
        return Tags(self.text)

    @cached_property
    def canonical(self) -> Canonical:
        return Canonical(self.text, self.tools, self.anything, self.dialect)

    @cached_property
    def machine(self) -> Machine:
        return Machine(self.tags, self.tools, self.anything, self.finished, self.allowance)

    @cached_property
    def ahead(self) -> Lookahead:
        return Lookahead(self.text)

    @cached_property
    def fences(self) -> Fences:
        return Fences(self.text)
