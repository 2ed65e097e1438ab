"""A project whose task a tiny model learns in eight steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.models import text_row, write_rows


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A task that eight steps teach, with a configuration that ends with its score."""

    def row(name: str, at: int) -> dict[str, Any]:
        meta = {"group": name, "schema": "answer", "gold": {"answer": "yes"}}
        return text_row(name, f"{at}?", "yes", meta=meta)

    write_rows(tmp_path / "train.jsonl", [row(f"r{at}", at) for at in range(6)])
    write_rows(tmp_path / "test.jsonl", [row(f"t{at}", at) for at in range(4)])
    (tmp_path / "eval.yaml").write_text(
        "data: nowhere.jsonl\nschema: answer\nbackend: {kind: transformers, model: none, adapter: none}\n"
        "metrics: [answers]\nsampling: {max_new_tokens: 4}\nresamples: 200\n"
    )
    (tmp_path / "train.yaml").write_text(
        "model: {name: tiny}\nadapter: {rank: 4}\nstages:\n"
        "  - {name: s, data: [train.jsonl], steps: 8, batch_size: 6, learning_rate: 5e-3, max_length: 64}\n"
        "evaluate: {config: eval.yaml, data: test.jsonl, before: true}\n"
    )
    return tmp_path
