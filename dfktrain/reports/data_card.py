"""Write the page about a run's data with rows as the run's model sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfkdata.common.errors import ConfigError
from dfkdata.reports.dataset_card import write_card
from dfkdata.reports.row_text import ModelView
from dfkeval.models.fingerprint import template_sha256
from dfkeval.models.rendering import chat_template, render, render_sample
from dfktrain.config.run import TrainConfig


def write(config: TrainConfig, processor: Any, path: Path, *, redact: bool = False) -> Path:
    """Write the page about the folder that all data of a run lies in.

    Args:
        config: The run's configuration.
        processor: The processor or tokenizer of its model.
        path: HTML file to write.
        redact: Whether personal data is masked and pictures are blurred.

    Returns:
        `path`.

    Raises:
        ConfigError: The data lies in several folders, or was not written by `dfkdata convert`.
    """
    files = [source.path for stage in config.stages for source in stage.sources]
    folders = list(dict.fromkeys(Path(file).resolve().parent for file in files))
    if len(folders) > 1:
        named = ", ".join(map(str, dict.fromkeys(Path(file).parent for file in files)))
        raise ConfigError(
            f"--card: the data lies in several folders ({named}); the page is about one of them"
        )
    view = ModelView(
        name=Path(config.model.name).name,
        template=chat_template(processor),
        sha256=template_sha256(processor),
        render=lambda row: _seen(row, processor),
    )
    return write_card(folders[0], path, view=view, lang=config.lang, redact=redact)


def _seen(row: dict[str, Any], processor: Any) -> str:
    """Return a row's prompt and answer; of a row without an answer the prompt."""
    if not row["messages"] or row["messages"][-1]["role"] != "assistant":
        return render(processor, row, row["messages"], generation_prompt=True)
    parts = render_sample(row, processor)
    return parts.prompt + parts.empty_think + parts.answer + parts.suffix
