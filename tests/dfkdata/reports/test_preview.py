"""A preview shows rows as they would be trained on, and rejects with their reason."""

from __future__ import annotations

from dfkdata.reports.preview import preview, schema_facts


def test_a_preview_shows_turns_and_rejects_in_order() -> None:
    rows = [{"instruction": "Sapa dunia.", "output": "Halo, dunia."}, {"instruction": "Sapa!"}]
    first, second = preview(rows, "alpaca")
    assert first.splitlines()[1:] == ["user: Sapa dunia.", "assistant: Halo, dunia."]
    assert first.startswith("── memory:1  id ")
    assert second.startswith("── memory:2  EMPTY_ANSWER: ")


def test_the_facts_of_a_schema_name_its_variants_and_roles() -> None:
    facts = schema_facts("dfk_label", "card")
    assert facts["variant"] == "card" and "card" in facts["variants"]
    assert facts["roles"]["label"] == "Label"
