"""Keys are taken out of what is shown and of what is recorded, and nothing else changes."""

from __future__ import annotations

import pytest

from dfkdata.common import credentials

KEY = "very-secret-4711/x"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_known", {})
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_that_was_read_is_named_by_its_variable_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    assert credentials.without_keys(f"a {KEY} b") == f"a {KEY} b"
    assert credentials.from_environment("SERVER_KEY") == KEY
    assert credentials.without_keys(f"a {KEY} b") == "a [SERVER_KEY] b"
    assert credentials.without_keys("?k=very-secret-4711%2Fx") == "?k=[SERVER_KEY]"
    assert credentials.keyless({"a": [KEY, 1, None], KEY: 2.5}) == {
        "a": ["[SERVER_KEY]", 1, None],
        "[SERVER_KEY]": 2.5,
    }


def test_libraries_keys_are_known_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert credentials.hidden(f"login {KEY}") == "login [WANDB_API_KEY]"


def test_a_short_value_takes_no_word_out_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", "none")
    assert credentials.from_environment("SERVER_KEY") == "none"
    assert credentials.hidden("none of them") == "none of them"


@pytest.mark.parametrize(
    ("text", "screen", "record"),
    [
        ("http://h:1/v1", "http://h:1/v1", "http://h:1/v1"),
        ("https://me:pass@h/v1", "https://[hidden]@h/v1", "https://h/v1"),
        ("at https://pass@h/v1: refused", "at https://[hidden]@h/v1: refused", "at https://h/v1: refused"),
        ("https://h/v1?api-version=1&key=k", "https://h/v1?api-version=1&key=k", "https://h/v1?[hidden]"),
        ("hf://datasets/ORG/NAME@main", "hf://datasets/ORG/NAME@main", "hf://datasets/ORG/NAME@main"),
        ("mail me@example.org", "mail me@example.org", "mail me@example.org"),
        ("Bearer sk-0123456789abcdef01", "Bearer [hidden]", "Bearer [hidden]"),
        ("C:\\data\\a@b", "C:\\data\\a@b", "C:\\data\\a@b"),
    ],
)
def test_addresses_lose_their_user_on_the_screen_and_their_query_in_a_record(
    text: str, screen: str, record: str
) -> None:
    assert credentials.hidden(text) == screen
    assert credentials.public(text) == record


def test_what_an_address_holds_is_known_afterwards() -> None:
    credentials.of_address("https://me:p%40ssword@h/v1?key=another-secret")
    assert credentials.without_keys("p@ssword, another-secret") == "[hidden], [hidden]"
    credentials.of_address("http://[broken")


def test_a_record_keeps_names_of_variables_and_no_values_of_keys() -> None:
    record = {
        "key": "OPENAI_API_KEY",
        "api_key": "abc",
        "engine_args": {"hf_token": "abc", "pad_token": "<pad>", "tokenizer": "t", "authorization": "x y"},
        "list": [{"password": "abc", "n": 3}],
    }
    assert credentials.public(record) == {
        "key": "OPENAI_API_KEY",
        "api_key": "[hidden]",
        "engine_args": {
            "hf_token": "[hidden]", "pad_token": "<pad>", "tokenizer": "t", "authorization": "[hidden]"
        },
        "list": [{"password": "[hidden]", "n": 3}],
    }  # fmt: skip


def test_a_variable_is_told_from_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("my_key", "x")
    assert credentials.is_variable("OPENAI_API_KEY") and credentials.is_variable("my_key")
    assert not any(map(credentials.is_variable, ("sk-abc", "hf_abcDEF", "not_set_here", "", "A B")))
