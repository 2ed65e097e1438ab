"""Write README.md beside the weights: the model card that the Hub shows, filled from the run.

How it works: the text is a function of run.json, dfk.json, the run's own evaluation and the section `card` of
its configuration.

Guarantees:
    - What a reader came for stands first: at most five metrics and how to ask the model; the rest is folded.
    - What a run cannot know and nobody wrote down is called unknown.
    - Files are named without their folders, so that no path of a machine is printed.
    - Equal runs give equal text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dfkdata.common import json_files
from dfkdata.validation.overlap import KINDS, SAYS
from dfkeval.analysis.comparison import HEADLINES
from dfkeval.models import metadata
from dfkeval.reports import notices
from dfktrain.config.sections import ModelCard
from dfktrain.reports import card_usage

NAME = "README.md"
HEADLINE_ROWS = 5
UNKNOWN = "Unknown: not written down with the run."
_SEEN = (
    "What the model sees before it answers, with names in braces where rows differ; a placeholder of an image is "
    "repeated as often as the image has tokens."
)
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")
_STAGE_KEYS = (
    "epochs", "steps", "batch_size", "batch_tokens", "accumulation", "packing", "learning_rate", "scheduler",
    "warmup_ratio", "warmup_steps", "optimizer", "weight_decay", "beta2", "clip", "max_length", "max_pixels",
    "on_too_long", "turns", "modality", "sft_plus", "resample", "label_weights",
)  # fmt: skip
_ADAPTER_KEYS = ("kind", "rank", "alpha", "dropout", "bias", "rslora", "dora", "loftq", "method", "options")

Rows = Iterable[tuple[str, Any]]


def write(run: str | Path, folder: str | Path | None = None, *, merged: bool = False) -> Path | None:
    """Write the card of a run.

    Args:
        run: Folder of the run.
        folder: Folder of the weights; None takes `run`/adapter.
        merged: Whether the folder holds the whole model instead of an adapter.

    Returns:
        The written file; None if `run` is no finished run.
    """
    run = Path(run)
    folder = run / "adapter" if folder is None else Path(folder)
    report = json_files.read_json_or_none(run / "run.json")
    if report is None:
        return None
    path = folder / NAME
    card = text(run.name, report, metadata.read(folder), evaluation(run), merged=merged)
    json_files.write_bytes(path, card.encode())
    return path


def evaluation(run: Path) -> dict[str, dict[str, Any]]:
    """Return "base" and "tuned" -> summary.json of the run's own evaluation, as far as they exist."""
    folder = run / "evaluation"
    names = ("base", "tuned")
    summaries = {name: json_files.read_json_or_none(folder / name / "summary.json") for name in names}
    return {name: summary for name, summary in summaries.items() if summary is not None}


def text(
    name: str,
    report: Mapping[str, Any],
    card: metadata.ModelMetadata | None,
    scores: Mapping[str, Mapping[str, Any]],
    *,
    merged: bool = False,
) -> str:
    """Return the text of the card.

    Args:
        name: Title of the card if the configuration names none.
        report: Contents of run.json.
        card: Contents of dfk.json; None without one.
        scores: What `evaluation` returns.
        merged: Whether the weights are the whole model instead of an adapter.
    """
    config = report["config"]
    section = ModelCard.model_validate(config.get("card") or {})
    whole = merged or config["adapter"]["kind"] == "full"
    base = base_model(report, section)
    parts = [
        _header(section, base, whole, report),
        f"# {section.title or name}",
        section.summary
        or f"{'A model' if whole else 'An adapter'} for {_short_name(report, base)}, trained with dfk.",
        _headline(scores),
        card_usage.snippet(card, _short_name(report, base, code=False), whole=whole),
        *(_folded(title, part) for title, part in _folds(section, report, base, whole, card, scores)),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _folds(
    section: ModelCard,
    report: Mapping[str, Any],
    base: str | None,
    whole: bool,
    card: metadata.ModelMetadata | None,
    scores: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, str]]:
    """Return what stands folded below the results, as (summary, Markdown)."""
    uses = [
        "## Uses\n\n### Intended uses\n\n" + (section.uses or UNKNOWN),
        "### Out of scope\n\n" + (section.out_of_scope or UNKNOWN),
        "### Limitations\n\n" + (section.limitations or UNKNOWN),
    ]
    return [
        ("All metrics", _scores(scores)),
        ("Uses and limitations", "\n\n".join(uses)),
        ("Model details", _details(section, report, base, whole)),
        ("Prompt", _prompt(card, report["stages"])),
        ("Training data", _data(report, section)),
        ("Training procedure", _procedure(report)),
        ("Time and memory", _usage(report["stages"])),
        ("Versions", "## Versions\n\n" + _table(("package", "version"), report["versions"].items())),
    ]


def _folded(title: str, part: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{part.strip()}\n\n</details>"


def _headline(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the most telling metrics, base beside tuned; nothing without an evaluation."""
    if "tuned" not in scores:
        return ""
    metrics = scores["tuned"]["metrics"]
    known = [name for name in metrics if metrics[name]["value"] is not None]
    names = [name for name in HEADLINES if name in known]
    names = [*names, *(name for name in known if name not in names)][:HEADLINE_ROWS]
    return f"## Results\n\n{scores['tuned']['n']} held-out rows.\n\n" + _score_table(scores, names)


def base_model(report: Mapping[str, Any], section: ModelCard) -> str | None:
    """Return the base's name on the Hub; None if the run used a folder and the section names none.

    Args:
        report: Contents of run.json.
        section: The section `card` of the configuration.
    """
    if section.base_model is not None:
        return section.base_model
    name = str(report["base"]["name"])
    return name if _HUB_NAME.match(name) and not name.startswith(".") else None


def _base_text(report: Mapping[str, Any], base: str | None) -> str:
    if base is not None:
        return base
    return f"`{Path(str(report['base']['name'])).name}` (a local model; its name on the Hub is unknown)"


def _short_name(report: Mapping[str, Any], base: str | None, *, code: bool = True) -> str:
    """Return the base's name on the Hub, or the name of its folder."""
    if base is not None:
        return base
    name = Path(str(report["base"]["name"])).name
    return f"`{name}`" if code else name


def _header(section: ModelCard, base: str | None, whole: bool, report: Mapping[str, Any]) -> str:
    """Return the YAML header of the Hub, without unknown keys."""
    llm = report["config"]["model"]["kind"] == "llm"
    known: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": None if base is None else "finetune" if whole else "adapter",
        "license": section.license,
        "language": [*section.language],
        "datasets": [*section.datasets],
        "pipeline_tag": "text-generation" if llm else "image-text-to-text",
        "library_name": "transformers" if whole else "peft",
        "tags": list(dict.fromkeys(["dfk", *([] if whole else ["lora"]), *section.tags])),
    }
    return "---\n" + yaml.safe_dump({k: v for k, v in known.items() if v}, sort_keys=False) + "---"


def _details(section: ModelCard, report: Mapping[str, Any], base: str | None, whole: bool) -> str:
    llm = report["config"]["model"]["kind"] == "llm"
    kind = "language model" if llm else "vision-language model"
    rows = {
        "developed by": section.developed_by or "unknown",
        "model type": kind if whole else f"{kind}, {report['config']['adapter']['kind']} adapter",
        "languages": ", ".join(section.language) or "unknown",
        "license": section.license or "unknown",
        "fine-tuned from": _base_text(report, base),
        "shapes of the base (sha256)": report["base"]["shapes_sha256"] or "unknown",
        "code": section.repository or "unknown",
    }
    return "## Model details\n\n" + _table(("", ""), rows.items())


def _data(report: Mapping[str, Any], section: ModelCard) -> str:
    rows = []
    for stage in report["stages"]:
        left = "; ".join(f"{count} rows left out: {why}" for why, count in stage["left_out"].items())
        for path, sha256 in stage["data_sha256"].items():
            rows.append(
                (stage["name"], Path(path).name, f"`{sha256}`", stage["samples"], left or "none left out")
            )
    named = ", ".join(section.datasets) or "unknown"
    shared = (report.get("overlap") or {}).get("validation") or {}
    noted = "; ".join(f"{shared[kind]} rows {SAYS[kind]}" for kind in KINDS if shared.get(kind))
    noted = f"\n\n**Note:** of the validation rows, {noted}." if noted else ""
    return (
        f"## Training data\n\nOn the Hub: {named}. Samples are those of the whole stage.\n\n"
        + _table(("stage", "file", "sha256", "samples", "left out"), rows)
        + noted
    )


def _prompt(card: metadata.ModelMetadata | None, stages: Sequence[Mapping[str, Any]]) -> str:
    if card is None:
        return f"## Prompt\n\n{UNKNOWN}"
    schema = f"Schema `{card.schema}`, form `{card.form}`."
    parts = [
        "## Prompt",
        schema if card.schema else "The rows do not share one schema, or name none.",
        *(_rendered(stages) or _prompt_parts(card)),
        f"Chat template (sha256): `{card.template_sha256}`. Thinking: {'on' if card.thinking else 'off'}. "
        f"Pixels an image: {card.max_pixels or 'as the processor says'}. `{metadata.NAME}` says it to programs.",
    ]
    return "\n\n".join(parts)


_MOST_PROMPTS = 8


def _rendered(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return every prompt that rows of the stages have, with how many of them; nothing for records without."""
    uses: dict[str, list[str]] = {}
    for stage in stages:
        known = stage.get("prompts") or ({stage["prompt"]: None} if stage.get("prompt") else {})
        for text, rows in known.items():
            uses.setdefault(text, []).append(f"{stage['name']}{'' if rows is None else f', {rows} rows'}")
    if len(uses) <= 1:
        return [_SEEN + _fenced(text) for text in uses]
    shown = [*uses.items()][:_MOST_PROMPTS]
    parts = [f"{_SEEN} Rows ask in {len(uses)} ways."]
    parts += [f"Stage {'; stage '.join(where)}:{_fenced(text)}" for text, where in shown]
    left = len(uses) - len(shown)
    return parts + ([f"{left} more are in `run.json` (`stages[].prompts`)."] if left else [])


def _prompt_parts(card: metadata.ModelMetadata) -> list[str]:
    """Return system turn, tools and instruction, for a record without the rendered prompt."""
    return [
        "System prompt: "
        + (_fenced(card.system_prompt) if card.system_prompt else "none, or not the same in all rows."),
        f"Tools:\n\n{_fenced(_json(card.tools), 'json')}"
        if card.tools
        else "Tools: none, or not the same in all rows.",
        *([f"Instruction:\n\n{_fenced(wording)}"] if (wording := instruction(card)) else []),
    ]


def instruction(card: metadata.ModelMetadata) -> str | None:
    """Return the user's turn that the schema writes, fields in braces; None without an installed schema."""
    from dfkdata import schemas
    from dfkdata.common.errors import ConfigError

    if card.schema is None:
        return None
    try:
        parts = schemas.load(card.schema, card.form, source="the adapter's dfk.json").prompt.parts
    except ConfigError:
        return None  # a schema of another project, which is not installed or not trusted here
    return "\n".join(_part(part) for part in parts)


def _part(part: Any) -> str:
    from dfkdata.schemas import Images, Lines, Text, Value

    match part:
        case Text(words):
            return str(words)
        case Lines(lines):
            return "\n".join(f"{name}: {{{key}}}" for name, key in lines)
        case Value(key, _):
            return f"{{{key}}}"
        case Images():
            return "<image>"
    raise TypeError(f"no part of a prompt: {part!r}")


def _procedure(report: Mapping[str, Any]) -> str:
    config = report["config"]
    adapter = [
        (key, config["adapter"][key]) for key in _ADAPTER_KEYS if config["adapter"].get(key) is not None
    ]
    warm = config["adapter"].get("warm_start")
    run = [
        *(adapter if config["adapter"]["kind"] != "full" else adapter[:1]),
        ("modules with an adapter", len(report["modules"])),
        ("trained parameters", f"{report['trained_parameters']:,}"),
        ("started from", _address(warm) if warm else "the base"),
        ("engine, precision", f"{report['engine']}, {report['precision']}"),
        ("checkpointing", config["checkpointing"]),
        ("seed", report["seed"]),
        ("loss on", "answers only"),
    ]
    parts = ["## Training procedure", _table(("parameter", "value"), run)]
    for planned, done in zip(config["stages"], report["stages"], strict=True):
        rows = [(key, planned[key]) for key in _STAGE_KEYS if planned.get(key) is not None]
        rows += [("steps done", done["steps"]), ("tokens", f"{done['tokens']:,}")]
        rows += [("scored tokens", f"{done['scored_tokens']:,}"), ("packing", done["packing"])]
        parts += [f"### Stage {done['name']}", _table(("parameter", "value"), dict(rows).items())]
    return "\n\n".join(parts)


def _address(warm: str) -> str:
    """Return an address on the Hub unchanged, a folder by its name."""
    return warm if warm.startswith("hf://") else f"a local adapter ({Path(warm).name})"


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    if "tuned" not in scores:
        return "## Evaluation\n\nUnknown: the run had no `evaluate:` section."
    level = f"{scores['tuned'].get('confidence', 0.95):.0%}"
    head = f"## Evaluation\n\n{scores['tuned']['n']} rows; in brackets the {level} interval.\n\n"
    head += "".join(f"**Note:** {notice}.\n\n" for notice in notices(scores["tuned"]))
    return head + _score_table(scores, scores["tuned"]["metrics"])


def _score_table(scores: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    models = [name for name in ("base", "tuned") if name in scores]
    rows = [(name, *(_estimate(scores[model]["metrics"].get(name)) for model in models)) for name in names]
    return _table(("metric", *models), rows)


def _estimate(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "undefined"
    if estimate["low"] is None or estimate["high"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _usage(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for stage in stages:
        usage = stage.get("usage") or {}
        peak = f"{usage['peak_gib']:.2f} GiB" if "peak_gib" in usage else "unknown"
        rows.append((stage["name"], f"{stage['seconds']:.0f} s", peak, usage.get("device", "unknown")))
    return "## Time and memory\n\n" + _table(("stage", "time", "peak memory", "device"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(value: Any) -> str:
    shown = _json(value, None) if isinstance(value, dict | list) else str(value)
    return " ".join(shown.split()).replace("|", "\\|").replace("<", "&lt;")


def _json(value: Any, indent: int | None = 2) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def _fenced(words: str, language: str = "text") -> str:
    """Return a code block that no text inside can close."""
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"\n\n{fence}{language}\n{words}\n{fence}"
