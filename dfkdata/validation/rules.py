"""The rules that rows must keep, each with a code, and what happens to a row that breaks one.

How it works: `RULES` is the only table of codes. Whoever finds a broken rule calls the row's `RowReport`. It
knows the policy of each rule, and raises the error, counts it as a warning, or lets it pass.

A rule of your own is a module outside this repository; its dotted name is its code. It looks at finished rows in
the messages layout, as soon as a policy is given for it (`--rule shop.links=warn`):

    RULE = Rule("a review holds no link", default="warn", policies=("quarantine", "warn", "off"))

    def check(row) -> None      raises `RowError(__name__, reason, ...)` if the row breaks the rule"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from dfkdata.common import plugins
from dfkdata.common.errors import ConfigError
from dfkdata.rows.record import Reject, Row, RowError

Policy = Literal["quarantine", "warn", "fix", "off"]
_SOFT: tuple[Policy, ...] = ("quarantine", "warn", "off")


@dataclass(frozen=True)
class Rule:
    """Describe one rule.

    Attributes:
        says: What the rule demands, for people.
        default: Its policy unless the user sets another.
        policies: What it can be set to; a row that cannot be read can only be quarantined.
        about: "media" if the answer depends on image, video or audio files beside the row, else "row".
    """

    says: str
    default: Policy = "quarantine"
    policies: tuple[Policy, ...] = ("quarantine",)
    about: Literal["row", "media"] = "row"


RULES: dict[str, Rule] = {
    "BAD_JSON": Rule("a line is one JSON object in UTF-8"),
    "KEY_TWICE": Rule("a JSON object names each of its keys once"),
    "BAD_ENCODING": Rule("text is UTF-8"),
    "CSV_BROKEN": Rule("quotes in a CSV row close"),
    "CSV_SHORT": Rule("a CSV row has a cell for each column"),
    "CSV_LONG": Rule("a CSV row has no more cells than columns"),
    "CSV_GUESSED": Rule(
        "a CSV file is UTF-8 with commas, or says by a mark or an option what it is", "warn", ("warn", "off")
    ),
    "CELL_NO_VALUE": Rule("a formula in a sheet holds its computed value"),
    "ROW_NOT_OBJECT": Rule("a row is an object"),
    "NOT_TEXT": Rule("a text field holds text"),
    "FIELD_EMPTY": Rule("a needed field is there and not blank"),
    "FORMAT_OTHER": Rule("a row is of the format that was named"),
    "FORMAT_UNLIKELY": Rule("the rows look like the format that was named", "warn", ("warn", "off")),
    "NO_INPUT": Rule("a row that is to be answered shows what the prompt asks about"),
    "NO_TURNS": Rule("a row holds a list of turns"),
    "NO_ANSWER": Rule("a row ends with an answer", policies=_SOFT),
    "NO_CALL": Rule("a tool-call row ends in a call"),
    "NOT_OBJECT": Rule("meta and chat_template_kwargs are objects"),
    "PART_UNKNOWN": Rule("parts of a turn are text, image, video or audio"),
    "TOOLS_INVALID": Rule("tools are a list of definitions with names"),
    "LABEL_CONFLICT": Rule("the label column says the same as the label in the text", policies=_SOFT),
    "IMG_LITERAL": Rule("a text that says <image> stays text in layouts whose placeholder that is"),
    "MEDIA_TAG": Rule(
        "the question of a row with files says no <image>, <video> or <audio> that was read as text",
        "warn",
        _SOFT,
    ),
    "MEDIA_UNREAD": Rule(
        "a column that names images, videos or audio is one that the format shows", "warn", _SOFT
    ),
    "LAYOUT_CANNOT": Rule("the layout can hold the row"),
    "MEDIA_COUNT": Rule("there are as many video and audio placeholders as files", policies=_SOFT),
    "MEDIA_MISSING": Rule("audio and video files exist under the roots", about="media"),
    "IMG_LIST": Rule("a list of image paths is a list of strings"),
    "IMG_MISSING": Rule("an image file exists under the image roots", about="media"),
    "IMG_AMBIGUOUS": Rule("an image name means one file", about="media"),
    "IMG_OUTSIDE": Rule("an image file lies inside the image roots, symlinks followed", about="media"),
    "IMG_REMOTE": Rule("images are files, not addresses", about="media"),
    "IMG_EMBEDDED": Rule("an embedded image has a folder to be written to", about="media"),
    "IMG_UNREADABLE": Rule(
        "an image file holds a picture that is not damaged, as far as that shows undecoded", about="media"
    ),
    "IMG_TRUNCATED": Rule("an image file reaches its end marker", about="media"),
    "IMG_BOMB": Rule("an image stays under the pixel limit", about="media"),
    "IMG_ANIMATED": Rule(
        "an image file holds one frame (fix: the first is written and used)",
        policies=("quarantine", "fix"),
        about="media",
    ),
    "IMG_SHAPE": Rule(
        "an image is at most 200 times as long as it is wide, which is what Qwen's processors take",
        policies=_SOFT,
        about="media",
    ),
    "IMG_COUNT": Rule("there are as many image placeholders as images", policies=_SOFT),
    "CONTROL_TOKEN": Rule("text holds no control token of a tokenizer, such as <|im_end|>", policies=_SOFT),
    "IMG_POSITION": Rule("media placeholders stand in user and tool turns", policies=_SOFT),
    "ROLE_UNKNOWN": Rule("roles are system, user, assistant, tool"),
    "SYSTEM_NOT_FIRST": Rule("a system turn comes first and once", policies=_SOFT),
    "ROLE_ORDER": Rule(
        "user and assistant alternate, starting with user; tool answers follow calls", policies=_SOFT
    ),
    "EMPTY_USER": Rule("a user turn holds text or an image", policies=_SOFT),
    "EMPTY_ANSWER": Rule("an assistant turn holds text or a tool call", policies=_SOFT),
    "ANSWER_COPIES_PROMPT": Rule("an answer is not the prompt again", policies=_SOFT),
    "LABEL_UNKNOWN": Rule("a label is one of the schema's classes or a known alias"),
    "GOLD_INVALID": Rule("gold is valid for the schema"),
    "TOOL_ARGS_NOT_OBJECT": Rule("tool arguments are an object"),
    "TOOL_ARGS_INVALID": Rule("tool arguments are valid for the tool's parameters", policies=_SOFT),
    "TOOL_ARGS_NULL": Rule("tool arguments hold null only where the tool allows it", "warn", _SOFT),
    "LOSS_FLAG": Rule("loss flags of turns can be honoured, and stand at assistant turns", policies=_SOFT),
    "LOSS_LAST": Rule(
        "the last answer carries loss, which alone is trained on unless turns: all asks for more",
        "warn",
        _SOFT,
    ),
    "REASONING": Rule("an assistant turn has at most one think block, at its start"),
    "TOOL_UNKNOWN": Rule("a called tool is among the row's tools", policies=_SOFT),
    "ID_TWICE": Rule("a source's own key names one row"),
    "GROUP_MISSING": Rule("the field to group by holds a value"),
    "SPLIT_UNKNOWN": Rule("the split column names train, validation or test"),
    "TOO_LONG": Rule("a row stays under max_tokens text tokens", policies=_SOFT),
    "NOT_GROUNDED": Rule("the source text supports the asked share of the answer", policies=_SOFT),
    "GROUNDING_EMPTY": Rule("an answer that is to be grounded says something", policies=_SOFT),
    "TWO_LABELS": Rule("one post has one label", "warn", _SOFT),
    "IMG_NEAR_DUPLICATE": Rule(
        "no held-out picture looks like one of training", "warn", ("warn", "off"), about="media"
    ),
    "IMG_UNDECODED": Rule(
        "a picture can be decoded to see how it looks", "warn", ("warn", "off"), about="media"
    ),
    "TEXT_NEAR_DUPLICATE": Rule("no held-out text is nearly one of training", "warn", ("warn", "off")),
    "GROUP_ACROSS": Rule("rows of one group are in one split", "warn", ("warn", "off")),
    "SIZE_RECOMMENDED": Rule(
        "100 to 100,000 training rows, as the swift layout's publisher recommends", "warn", ("warn", "off")
    ),
    "SPLIT_EMPTY": Rule("a split that was asked for holds rows", "warn", ("warn", "off")),
    "ANSWER_MISSING_VALUE": Rule(
        "an answer is no sign of a missing value (nan, None, -) and holds no spreadsheet error (#VALUE!, #NAMA?)",
        "warn",
        _SOFT,
    ),
    "TEXT_DAMAGED": Rule(
        "an answer holds no NUL and no U+FFFD, the sign for a lost character", "warn", _SOFT
    ),
    "TEXT_NFC": Rule("text is in Unicode normal form C", "fix", ("fix", *_SOFT)),
    "ZERO_WIDTH": Rule("text holds no invisible characters", "warn", ("fix", *_SOFT)),
    "CLASS_RARE": Rule("each class has at least 5 % of the rows", "warn", ("warn", "off")),
}


@dataclass(frozen=True)
class RowRule:
    """A rule outside this repository: what it demands, and who looks for it."""

    rule: Rule
    check: Callable[[Row], None]


def load_row_rule(code: str) -> RowRule:
    """Return the rule in a module outside this repository.

    Args:
        code: Dotted name of the module.

    Raises:
        ConfigError: There is no such module, or it has no `RULE` and `check`.
    """
    module = plugins.load_outside("rule", code)
    if module is None:
        raise ConfigError(f"no rule {code!r}{plugins.suggestion(code, list(RULES))}")
    rule, check = getattr(module, "RULE", None), getattr(module, "check", None)
    if not isinstance(rule, Rule) or not callable(check):
        raise ConfigError(
            f"rule {code!r}: the module needs RULE, a dfkdata.validation.rules.Rule, and check(row)"
        )
    return RowRule(rule, check)


def rule_of(code: str) -> Rule:
    """Return the rule of a code, or of a module outside this repository. Raises `ConfigError` if there is none."""
    return RULES[code] if code in RULES else load_row_rule(code).rule


class WarnedRow(NamedTuple):
    """One of several rows that a warning is about.

    Attributes:
        source: "file:line" of the raw row.
        partner: That of the row which it is like.
        row: Its own place among the rows that were written, such as "validation.jsonl:7".
        partner_row: That of the row which it is like.
        reason: What is wrong with this row.
    """

    source: str
    partner: str
    row: str
    partner_row: str
    reason: str


class RuleWarning(Reject, frozen=True, kw_only=True, gc=False):
    """Hold a broken rule that let its rows through.

    Attributes:
        partner: "file:line" of another row that the reason is about.
        rows: Each row if it is about several; empty if `source` is the only place.
        number: The number of its row among those that were written; -1 if it is about none or several.
    """

    partner: str = ""
    rows: tuple[WarnedRow, ...] = ()
    number: int = -1

    def lines(self) -> list[dict[str, str]]:
        """Return one object a row: code, place, partner, reason and what else is known."""
        facts = {
            key: getattr(self, key) for key in ("reason", "path", "excerpt", "hint") if getattr(self, key)
        }
        if not self.rows:
            return [{"code": self.code, "source": self.source, "partner": self.partner} | facts]
        return [{"code": self.code} | row._asdict() | {"hint": self.hint} for row in self.rows]


class RuleReporter:
    """Apply the policies of the rules: raise, count as a warning, or ignore."""

    def __init__(
        self, policies: dict[str, Policy] | None = None, warn: Callable[[RuleWarning], None] | None = None
    ) -> None:
        """Take the policies of a conversion.

        Args:
            policies: Code -> policy, for rules that do not keep their default.
            warn: Called with each warning.
        """
        self._policies = policies or {}
        self._warn = warn

    def policy(self, code: str) -> Policy:
        """Return the policy of a rule."""
        return self._policies.get(code) or rule_of(code).default

    def report(
        self, error: RowError, source: str, rows: Sequence[WarnedRow] = (), *, number: int = -1
    ) -> None:
        """Raise `error`, count it, or let it pass, by its rule's policy; a fix counts as a warning.

        Args:
            error: The broken rule.
            source: "file:line" of the row, or "all rows".
            rows: Each row if it is about several.
            number: The number of the row among those that were written, if it is about one.

        Raises:
            RowError: The policy is "quarantine".
        """
        self.warn(self.judge(error, source, rows), number)

    def judge(self, error: RowError, source: str, rows: Sequence[WarnedRow] = ()) -> RuleWarning | None:
        """Return the warning that a broken rule is; None if it passes. Arguments and error as `report`."""
        policy = self.policy(error.code)
        if policy == "quarantine":
            raise error
        if policy == "off" or self._warn is None:
            return None
        facts = msgspec.structs.asdict(error.reject(source, None))
        return RuleWarning(**facts, partner=error.partner, rows=tuple(rows))

    def warn(self, warning: RuleWarning | None, number: int = -1) -> None:
        """Count a warning, if it is one, about the row of this number among those that were written."""
        if warning is not None and self._warn is not None:
            self._warn(warning if number < 0 else msgspec.structs.replace(warning, number=number))

    def for_row(self, source: str, warnings: tuple[RowError, ...] = ()) -> RowReport:
        """Return the report of one row, which begins with what the format found wrong with it (`warnings`).

        Raises:
            RowError: A warning whose policy is "quarantine".
        """
        if not warnings:
            return RowReport(self, source)
        report = RowReport(self, source, frozenset(warning.code for warning in warnings))
        for warning in warnings:
            report.add(warning)
        return report


class RowReport(msgspec.Struct, frozen=True, gc=False):
    """Report the broken rules of one row; its warnings are held back until the row is written.

    Attributes:
        reporter: Knows the policies.
        source: "file:line" of the row.
        known: Codes of which the row's format has warned already; they are not counted again.
        held: Warnings that wait.
    """

    reporter: RuleReporter
    source: str
    known: frozenset[str] = frozenset()
    held: list[RuleWarning] = []

    def policy(self, code: str) -> Policy:
        """Return the policy of a rule."""
        return self.reporter.policy(code)

    def __call__(self, error: RowError) -> None:
        """Report a broken rule. Raises `RowError` if its policy is "quarantine"."""
        if error.code not in self.known or self.reporter.policy(error.code) == "quarantine":
            self.add(error)

    def add(self, error: RowError) -> None:
        """Report a broken rule, known or not. Raises `RowError` if its policy is "quarantine"."""
        warning = self.reporter.judge(error, self.source)
        if warning is not None:
            self.held.append(warning)

    def settle(self, number: int) -> None:
        """Count the warnings: the row was written. A row that was rejected, or is a copy, counts as that alone.

        Args:
            number: Its number among the rows that were written.
        """
        for warning in self.held:
            self.reporter.warn(warning, number)
