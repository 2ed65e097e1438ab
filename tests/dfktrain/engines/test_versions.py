"""Versions that do not work, alone or together."""

from __future__ import annotations

import pytest

from dfktrain.engines import _versions


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("transformers", "5.16.0", "install transformers>=5.17,<5.24"),
        ("transformers", "5.24.0", "install transformers>=5.17,<5.24"),
        ("peft", "0.22.0", "install peft>=0.21,<0.22"),
        ("fla-core", "0.6.0", "crashes without a GPU"),
        ("torch", "2.8.0", "install torch>=2.9"),
        ("trl", "1.15.0", "cannot train on a CPU"),
    ],
)
def test_known_bad_versions_are_named_with_the_good_one(
    monkeypatch: pytest.MonkeyPatch, package: str, version: str, said: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert said in str(_versions.fault(package, {package: version}))


def test_unsloth_beside_a_newer_transformers_is_named() -> None:
    found = {"unsloth": "2026.10.9", "transformers": "5.23.0"}
    assert "needs transformers<=5.17.0" in str(_versions.fault("unsloth", found))
    assert _versions.fault("unsloth", found | {"transformers": "5.17.0"}) is None
    found = {"unsloth": "2026.10.9", "transformers": "5.17.0", "trl": "1.16.0"}
    assert "needs trl<=1.15.0, found 1.16.0" in str(_versions.fault("unsloth", found))


def test_a_fault_of_a_package_that_the_engine_does_not_use_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend = {"torch": "2.11.0", "transformers": "5.23.0", "unsloth": "2026.10.9", "peft": "0.22.0"}
    monkeypatch.setattr(_versions, "package_versions", lambda: pretend)

    def stopping(engine: str) -> set[str]:
        return {version.package for version in _versions.check_versions(engine) if version.stops}

    assert stopping("transformers") == {"peft"} and stopping("unsloth") == {"peft", "unsloth"}


def test_this_environment_has_no_known_fault() -> None:
    assert [version.fault for version in _versions.check_versions() if version.fault] == []
