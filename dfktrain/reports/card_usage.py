"""Say how a trained model is asked, for its card."""

from __future__ import annotations

from dfkeval.models import metadata

HEADING = "## How to use"


def snippet(card: metadata.ModelMetadata | None, base: str, *, whole: bool) -> str:
    """Return a section that asks the model for one answer; nothing without a schema that is installed.

    Args:
        card: Contents of dfk.json.
        base: Name of the base.
        whole: Whether the weights are the whole model instead of an adapter.
    """
    fields = None if card is None else _fields(card)
    if fields is None:
        return ""
    folder = "path/to/this/folder"
    model = f'Predictor("{folder}")' if whole else f'Predictor("{base}", adapter="{folder}")'
    asked = ", ".join(f'{name}="..."' for name in fields)
    options = f"--model {folder}" if whole else f"--model {base} --adapter {folder}"
    given = " ".join("--image picture.png" if name == "image" else f"--field {name}='...'" for name in fields)
    return (
        f"{HEADING}\n\n```python\nfrom dfkeval import Predictor\n\npredictor = {model}\n"
        f"predictor({asked})\n```\n\n```\ndfkeval predict {options} {given}\n```"
    )


def _fields(card: metadata.ModelMetadata) -> list[str] | None:
    """Return the names by which the schema's prompt is filled in, "image" for pictures; None without a schema."""
    from dfkdata import schemas
    from dfkdata.common.errors import ConfigError
    from dfkdata.schemas import Images, Lines, Value

    if card.schema is None:
        return None
    try:
        parts = schemas.load(card.schema, card.form, source="the adapter's dfk.json").prompt.parts
    except ConfigError:
        return None  # a schema of another project, which is not installed or not trusted here
    names: list[str] = []
    for part in parts:
        match part:
            case Lines(lines):
                names += [key for _, key in lines]
            case Value(key, _):
                names.append(key)
            case Images():
                names.append("image")
    return list(dict.fromkeys(names))
