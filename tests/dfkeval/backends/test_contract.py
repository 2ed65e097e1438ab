"""Every engine keeps the contract of its family, and the docstring's example is a complete member."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from dfkdata.common import plugins
from dfkdata.common.config import bind
from dfkdata.common.errors import ConfigError
from dfkeval import Predictor, backends
from dfkeval.backends import Cacheable, Capabilities, Scorer
from dfkeval.inference.backend_options import BackendChoice
from dfkeval.types import Constraint, Sampling

MEMBERS = plugins.names(backends.FAMILY)
CLASSES = {"openai": "OpenAI", "scripted": "Scripted", "transformers": "Transformers", "vllm": "VLLM"}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_is_configured_and_started_by_its_name_and_says_what_it_can_do(name: str) -> None:
    module = plugins.load(backends.FAMILY, name)
    assert module.Config.model_fields["kind"].default == name and callable(module.start)
    backend = getattr(module, CLASSES[name])
    assert backends.capabilities_of(name) is module.CAPABILITIES is backend.capabilities
    assert isinstance(module.CAPABILITIES, Capabilities)
    assert issubclass(backend, Scorer) is module.CAPABILITIES.likelihoods
    assert hasattr(backend, "fingerprint") is module.CAPABILITIES.cacheable
    assert {"generate", "close"} <= set(dir(backend)) and "fingerprint" in dir(Cacheable)


def test_a_member_that_cannot_constrain_is_refused_before_it_is_started(tmp_path: Path) -> None:
    config = plugins.load(backends.FAMILY, "scripted").Config(completions=tmp_path / "none.jsonl")
    backends.check(config, Sampling(), None)
    with pytest.raises(ConfigError, match="'scripted' cannot constrain"):
        backends.check(config, Sampling(), Constraint(kind="json_object"))


def test_the_example_of_the_contract_answers_as_one_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = str(backends.__doc__).partition("A complete member:")[2].partition("Other rooms")[0]
    (tmp_path / "my_engines").mkdir()
    code = textwrap.dedent(example).replace('"echo"', '"my_engines.echo"')
    (tmp_path / "my_engines" / "echo.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert backends.capabilities_of("my_engines.echo") == Capabilities()
    config = bind({"backend": {"kind": "my_engines.echo"}}, BackendChoice, "test").backend
    sample = Predictor(schema="answer", backend=config).sample(fields={"question": "Apa?"})
    assert (sample.text, sample.outcome) == ("1", "ok")
