"""Say what a server's own tool-call parser did: count the answers that came parsed, and compare it with ours.

How it works: ours is the strict reading, else the lenient one; the server's is its one call of the schema's
tool. They agree if both found the same arguments, or if both found no call.

Guarantees:

- Answers whose raw text is not known are counted and not compared.
- The report says how many answers came parsed: a parser may drop or close what the model wrote wrongly.
- If two requests were needed, the result says so, since it then relies on the server repeating itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dfkdata.schemas import Schema, ToolForm
from dfkeval.types import Completion, Sample

#: Key of the result in the details of summary.json.
DETAIL = "server_parsing"
#: Key of the number of answers whose own text the server kept back.
ONLY_PARSED = "parsed_by_server"
#: Differences that are listed in full.
SHOWN = 20


def compare(
    samples: Iterable[Sample], completions: Mapping[str, Completion], schema: Schema
) -> dict[str, Any] | None:
    """Compare both parsers on a run.

    Args:
        samples: The graded answers.
        completions: Request id -> completion, which may carry what the server parsed.
        schema: The schema of the answers.

    Returns:
        {"compared", "equal", "server_parsed", "sources", "differ": [{"id", "ours", "server"}]}; None if no
        completion carries what its server parsed.
    """
    sources: Counter[str] = Counter()
    differ: list[dict[str, Any]] = []
    compared = parsed = 0
    for sample in samples:
        completion = completions.get(sample.id)
        if completion is None or completion.server_calls is None:
            continue
        sources[completion.server_source or "no raw text"] += 1
        parsed += bool(completion.server_calls)
        if completion.server_source == "no raw text":
            continue
        compared += 1
        theirs = called(completion.server_calls, schema)
        if theirs != sample.lenient:
            differ.append({"id": sample.id, "ours": sample.lenient, "server": completion.server_calls})
    if not sources:
        return None
    return {
        "compared": compared,
        "equal": compared - len(differ),
        "server_parsed": parsed,
        "sources": dict(sorted(sources.items())),
        "differ": differ[:SHOWN],
    }


def details(
    samples: Sequence[Sample], completions: Mapping[str, Completion], schema: Schema
) -> dict[str, Any]:
    """Return what a run's details say about its server's parser; empty if it did nothing.

    Args:
        samples: The graded answers.
        completions: Request id -> completion.
        schema: The schema of the answers.

    Returns:
        The result of `compare`, and the number of answers that came as parsed calls alone.
    """
    parsed = sum(completions[sample.id].server_parsed for sample in samples if sample.id in completions)
    compared = compare(samples, completions, schema)
    found = {} if compared is None else {DETAIL: compared}
    return found | ({ONLY_PARSED: parsed} if parsed else {})


def called(calls: list[dict[str, Any]], schema: Schema) -> dict[str, Any] | None:
    """Return the arguments of the one call of the schema's tool; None for none, several, or another tool."""
    name = schema.form.name if isinstance(schema.form, ToolForm) else None
    if len(calls) != 1 or calls[0].get("name") != name or not isinstance(calls[0].get("arguments"), dict):
        return None
    arguments: dict[str, Any] = calls[0]["arguments"]
    return arguments


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what `details` found as sentences for the report."""
    sentences = [line(found[DETAIL])] if DETAIL in found else []
    if ONLY_PARSED in found:
        sentences.append(
            f"The server parsed {found[ONLY_PARSED]} answers and kept their text back: what its parser left out "
            "or mended is not seen here, so they may look better than they are. Start it without a tool-call "
            "parser."
        )
    return sentences


def line(result: Mapping[str, Any]) -> str:
    """Return the result of `compare` as one sentence for the report."""
    sources = ", ".join(f"{count} from {name}" for name, count in result["sources"].items())
    agreement = (
        f"The server's tool-call parser agrees with ours on {result['equal']} of {result['compared']} answers"
    )
    if result["compared"] and not result["server_parsed"]:
        return f"{agreement}; it parsed none at all, so it was probably started without a parser ({sources})."
    return f"{agreement} ({sources})."
