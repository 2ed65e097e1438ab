"""Every validator keeps one contract: None accepts, a line rejects, and verdicts repeat."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.schemas import Schema
from dfkeval import validators
from dfkeval.types import Sample
from tests.helpers.runs import CAPTION, DFK, minilm, sample_of

NAMES = plugins.names(validators.FAMILY)


def schema_for(name: str) -> Schema:
    return CAPTION if name == "grounding" else DFK


def judge(name: str, **options: Any) -> validators.Validator:
    given = ({"model": str(minilm())} if name == "similarity" else {}) | options
    return validators.build({name: given}, schema_for(name).name)


def test_the_family_has_the_members_that_labelling_and_sampling_name() -> None:
    assert {"schema_valid", "label_match", "grounding", "similarity"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_member_has_options_that_check_names_keys(name: str) -> None:
    assert issubclass(plugins.load(validators.FAMILY, name).Options, Config)
    with pytest.raises(ConfigError, match="unknown key"):
        validators.build({name: {"nonsense": 1}}, schema_for(name).name)


@pytest.mark.parametrize("name", NAMES)
def test_gold_as_answer_is_accepted_and_no_answer_is_rejected_with_a_line(name: str) -> None:
    validator = judge(name)
    assert validator(sample_of(1, schema_for(name))) is None
    for text in ("", "nothing of the form", "\x00"):
        reason = validator(sample_of(1, schema_for(name), text))
        assert reason is not None and reason.startswith(f"{name}: ")
        assert len(reason) > len(name) + 2 and "\n" not in reason


@pytest.mark.parametrize("name", NAMES)
def test_a_verdict_does_not_depend_on_what_came_before(name: str) -> None:
    samples = [sample_of(index, schema_for(name), text) for index, text in enumerate(["", None, "x", None])]
    validator = judge(name)
    forwards = [validator(each) for each in samples]
    backwards = [validator(each) for each in reversed(samples)]
    assert forwards == backwards[::-1] == [judge(name)(each) for each in samples]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_gold_and_source_is_judged_or_rejected_and_never_a_crash(name: str) -> None:
    bare = replace(sample_of(1, schema_for(name)), gold=None, source_text=None)
    assert (judge(name)(bare) is None) is (name == "schema_valid")


def test_the_first_rejection_counts() -> None:
    both = validators.build({"schema_valid": {}, "label_match": {}})
    assert str(both(sample_of(0, DFK, ""))).startswith("schema_valid: empty")
    wrong = sample_of(0, DFK, "Label: fitnah\n\nAnalisis: x")
    assert both(wrong) == "label_match: 'fitnah' where the gold is 'netral'"


def test_an_unknown_validator_is_named_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="grounding, label_match, schema_valid"):
        validators.build({"groundin": {}})


def repaired() -> Sample:
    found = sample_of(0, DFK, "label : netral\n\nanalisis: x")
    assert found.outcome == "repaired"
    return found


def test_repaired_answers_are_valid_only_where_it_is_allowed() -> None:
    assert judge("schema_valid")(repaired()) is not None
    assert judge("schema_valid", lenient=True)(repaired()) is None


def test_one_unsupported_word_is_too_much_for_a_grounding_of_one() -> None:
    sample = replace(sample_of(1, CAPTION), source_text="A small cat is running on the grass.")
    assert "'horse' is not in the source (0.67)" in str(judge("grounding")(sample))
    assert judge("grounding", minimum=0.6)(sample) is None


def test_an_answer_that_says_nothing_is_grounded_only_where_it_is_allowed() -> None:
    nothing = sample_of(1, CAPTION, "<tool_call>\n<function=emit_caption_schema>\n</function>\n</tool_call>")
    assert nothing.outcome == "ok"
    assert "says nothing" in str(judge("grounding")(nothing))
    assert judge("grounding", empty=True)(nothing) is None


def test_grounding_without_a_schema_or_without_grounded_fields_is_refused() -> None:
    with pytest.raises(ConfigError, match="name the schema of the answers"):
        validators.build({"grounding": {}})
    with pytest.raises(ConfigError, match="no field with the role Grounded"):
        validators.build({"grounding": {}}, "dfk_label")


def test_similarity_takes_what_means_the_same_and_refuses_what_does_not() -> None:
    gold = {"label": "netral", "analisis": "A man is riding a horse on the beach."}
    near = {"label": "fitnah", "analisis": "On the beach, a man rides a horse."}
    far = {"label": "netral", "analisis": "The stock market fell by three percent today."}
    samples = [replace(sample_of(0, DFK), gold=gold, lenient=said) for said in (near, far)]
    verdicts = [judge("similarity", field="analisis")(each) for each in samples]
    assert verdicts[0] is None
    assert verdicts[1] is not None and "is below 0.8" in verdicts[1]


def test_pooling_is_the_sentence_encoder_s_own_mean() -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModel, AutoTokenizer

    from dfkeval.models.text_encoder import TextEncoder
    from dfkeval.validators.similarity import pooled

    folder, text = str(minilm()), "A small cat."
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0]
    assert pooled(TextEncoder(folder, None, "float32"), text) == pytest.approx(
        states.mean(0).numpy(), abs=1e-5
    )
