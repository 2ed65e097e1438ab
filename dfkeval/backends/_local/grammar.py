"""Keep answers to their constraints while they are written, through xgrammar.

How it works: there is one compiler for each tokenizer and vocabulary size (the model's, which is larger than
the tokenizer's, because padded logits must be masked too), and one processor for each call of `generate`,
with one matcher a row. A row that reasons first is free until its think block is closed, and then gets the
blank line that the template writes.

Guarantees:
- A row that has ended is never matched again.
- A constraint that cannot be compiled is a `ConfigError`, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkeval.backends._local.logits import only
from dfkeval.backends._xgrammar import load_xgrammar
from dfkeval.types import Constraint


class Compiler:
    """Compile constraints for one tokenizer; `vocab` is the number of logits of a step, `ends` are ids that
    end a turn."""

    def __init__(self, tokenizer: Any, vocab: int, ends: Sequence[int]) -> None:
        self.library = load_xgrammar()
        info = self.library.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocab, stop_token_ids=list(ends)
        )
        self.compiler = self.library.GrammarCompiler(info)
        self.vocab = vocab
        self.known: dict[Constraint, Any] = {}

    def compiled(self, constraint: Constraint) -> Any:
        """Return the compiled constraint. Raises `ConfigError` if the library refuses it."""
        if constraint not in self.known:
            try:
                self.known[constraint] = self._compile(constraint)
            except (RuntimeError, ValueError) as error:
                reason = str(error).strip().splitlines()[-1]
                raise ConfigError(f"the {constraint.kind} cannot be compiled: {reason}") from error
        return self.known[constraint]

    def matcher(self, constraint: Constraint) -> Any:
        """Return a matcher at the beginning of an answer."""
        return self.library.GrammarMatcher(self.compiled(constraint))

    def _compile(self, constraint: Constraint) -> Any:
        match constraint.kind:
            case "structural_tag":
                return self.compiler.compile_structural_tag(constraint.text)
            case "grammar":
                return self.compiler.compile_grammar(constraint.text)
            case "json_schema":
                return self.compiler.compile_json_schema(constraint.text)
            case "json_object":
                return self.compiler.compile_json_schema('{"type": "object"}')


class Constrained:
    """Let each row choose only what its constraint allows.

    Args:
        compiler: The compiler of the constraints.
        compiled: One compiled constraint a row; None for a free row.
        ends: Ids after which a row has ended.
        think_end: Id that closes the think block which the prompts opened; None without one.
        gap: Ids that follow it.
    """

    def __init__(
        self,
        compiler: Compiler,
        compiled: Sequence[Any],
        ends: Sequence[int],
        *,
        think_end: int | None = None,
        gap: Sequence[int] = (),
    ) -> None:
        library = compiler.library
        self.apply = library.apply_token_bitmask_inplace
        self.matchers: list[Any] = [grammar and library.GrammarMatcher(grammar) for grammar in compiled]
        self.mask = library.allocate_token_bitmask(len(compiled), compiler.vocab)
        self.ends, self.think_end, self.gap = frozenset(ends), think_end, list(gap)
        self.waiting = [think_end is not None] * len(compiled)
        self.due: list[list[int]] = [[] for _ in compiled]
        self.begun = [False] * len(compiled)

    def __call__(self, ids: Any, logits: Any) -> Any:
        last = ids[:, -1].tolist()
        rows = [row for row in range(len(self.matchers)) if self._matches(row, last[row], logits)]
        for row in rows:
            self.matchers[row].fill_next_token_bitmask(self.mask, row)
        if rows:
            self.apply(logits, self.mask.to(logits.device), indices=rows)
        return logits

    def _matches(self, row: int, last: int, logits: Any) -> bool:
        """Accept the last token of a row; return whether its next one is bound by the grammar."""
        if self.matchers[row] is None or not self._answering(row, last, logits):
            return False
        if not self.begun[row]:
            self.begun[row] = True
            return True
        if last in self.ends or not self.matchers[row].accept_token(last):
            self.matchers[row] = None  # the row has ended; what follows is padding
            return False
        return not self.matchers[row].is_terminated()

    def _answering(self, row: int, last: int, logits: Any) -> bool:
        """Return whether the answer of a row has begun; the gap behind its think block is written first."""
        if self.waiting[row]:
            if last != self.think_end:
                return False
            self.waiting[row], self.due[row] = False, list(self.gap)
        if self.due[row]:
            only(logits, row, self.due[row].pop(0))
            return False
        return True
