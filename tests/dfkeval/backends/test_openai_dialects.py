"""What each kind of server is sent, what it ignores, and what is done about it; the real ones are asked in
`tests/integration`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai import protocol
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Constraint, ConstraintKind, Request, Sampling
from tests.helpers.runs import CAPTION, caption_gold, write_rows
from tests.helpers.servers import ChatServer, chat, chat_server

#: What `transformers serve` takes: any other name is refused with 422 (5.17 to 5.19).
TAKEN_BY_TRANSFORMERS = {
    "model", "messages", "max_tokens", "temperature", "top_p", "seed", "stop", "tools", "stream",
    "generation_config", "chat_template_kwargs",
}  # fmt: skip
ASKED = Request(id="a", messages=[{"role": "user", "content": [{"type": "text", "text": "q"}]}])


def said(text: str, reason: str, sampling: Sampling, **message: Any) -> Completion:
    answer = chat(text, reason)
    answer["choices"][0]["message"] |= message
    return protocol.completion("a", answer, sampling, 0.0, "transformers")


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7, top_k=5, min_p=0.1, top_p=0.9), Sampling(repetition_penalty=1.2)],
)
def test_transformers_serve_gets_names_that_it_takes_and_none_of_its_folders_defaults(
    sampling: Sampling,
) -> None:
    payload = protocol.body(ASKED, sampling, "m", "transformers")
    assert payload.keys() <= TAKEN_BY_TRANSFORMERS
    drawn = json.loads(payload["generation_config"])
    assert drawn == {
        "do_sample": sampling.temperature > 0, "top_p": sampling.top_p, "top_k": sampling.top_k,
        "min_p": sampling.min_p, "repetition_penalty": sampling.repetition_penalty,
    }  # fmt: skip


def test_a_stop_string_is_not_sent_to_transformers_serve_and_cuts_its_answer_here() -> None:
    sampling = Sampling(stop=("</x>", "\n\n"))
    assert "stop" not in protocol.body(ASKED, sampling, "m", "transformers")
    assert protocol.body(ASKED, sampling, "m")["stop"] == ["</x>", "\n\n"]
    cut = said("a</x>b\n\nc", "length", sampling)
    assert (cut.text, cut.finish_reason, cut.restored_stop) == ("a</x>", "stop", None)
    assert said("a b", "length", sampling).finish_reason == "length"
    assert said("a</x", "stop", sampling).text == "a</x"
    assert said("a</x>b", "stop", Sampling()).text == "a</x>b"


def test_two_calls_that_the_server_parsed_end_at_the_first_closing_tag() -> None:
    calls = [{"id": at, "function": {"name": "f", "arguments": "{}"}} for at in "ab"]
    found = said("", "tool_calls", Sampling(stop=("</tool_call>",)), tool_calls=calls)
    assert found.text.count("<function=f>") == 1 and found.text.endswith("</tool_call>")
    assert found.server_parsed


@pytest.mark.parametrize("kind", get_args(ConstraintKind))
def test_a_constraint_that_transformers_serve_ignores_is_refused_by_name(kind: ConstraintKind) -> None:
    config = openai.Config(base_urls=("http://127.0.0.1:9",), model="m", server="transformers")
    with pytest.raises(ConfigError, match="transformers serve"):
        openai.check(config, Sampling(), Constraint(kind=kind, text="{}"))


def test_a_key_that_the_list_of_models_refuses_is_one_error_before_the_first_question() -> None:
    for status, error in (
        (401, {"message": "no key"}),
        (400, {"type": "no_db_connection", "message": "No db."}),
    ):
        with Refusing(status, {"error": error}) as server:
            with pytest.raises(BackendError, match=r"correct backend\.key"):
                openai.start(openai.Config(base_urls=(server.url,), model="m"))
            assert server.bodies == []


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 501])
def test_a_server_without_a_list_of_models_is_asked_all_the_same(status: int) -> None:
    with Refusing(status, {"detail": "Not Found"}) as server:
        backend = openai.start(openai.Config(base_urls=(server.url,), model="m"))
        assert next(backend.generate([ASKED], Sampling())).text == "yes"


class Refusing:
    """A server whose list of models is an error and whose answers are "yes"."""

    def __init__(self, status: int, body: Any) -> None:
        self.server = ChatServer(lambda number: chat("yes"))
        handler = self.server.http.RequestHandlerClass
        content = json.dumps(body).encode()
        handler.do_GET = lambda self: self.send(status, "application/json", content)  # type: ignore[attr-defined]

    def __enter__(self) -> ChatServer:
        return self.server

    def __exit__(self, *trouble: object) -> None:
        self.server.close()


def test_the_report_says_that_answers_came_parsed_and_their_text_was_kept_back(tmp_path: Path) -> None:
    def answer(number: int) -> dict[str, Any]:
        made = chat(None, "tool_calls")
        function = {"name": "emit_caption_schema", "arguments": json.dumps(caption_gold(0))}
        made["choices"][0]["message"]["tool_calls"] = [{"id": "c", "type": "function", "function": function}]
        return made

    data = write_rows(tmp_path / "test.jsonl", CAPTION, 2)
    with chat_server(answer) as server:
        backend = {"kind": "openai", "base_urls": [server.url], "model": "m"}
        config = EvalConfig.model_validate(
            {"data": data, "schema": "caption", "backend": backend, "resamples": 200}
        )
        run = evaluate(config, tmp_path / "run")
    assert run.summary["details"]["parsed_by_server"] == 2
    for name in ("report.md", "report.html"):
        assert "parsed 2 answers and kept their text back" in (run.folder / name).read_text(encoding="utf-8")


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def test_vllm_is_shown_tools_that_it_is_not_to_parse_unless_one_is_forced() -> None:
    with_tools = replace(ASKED, tools=TOOLS)
    assert "tool_choice" not in protocol.body(ASKED, Sampling(), "m", "vllm")
    assert "tool_choice" not in protocol.body(with_tools, Sampling(), "m", "sglang")
    shown = protocol.body(with_tools, Sampling(), "m", "vllm")
    assert shown["tool_choice"] == "none" and protocol.parsed_too(shown)["tool_choice"] == "auto"
    forced = protocol.body(replace(with_tools, force_tool="f"), Sampling(), "m", "vllm")
    assert forced["tool_choice"]["function"] == {"name": "f"} and protocol.parsed_too(forced) == forced
    plain = protocol.body(with_tools, Sampling(), "m")
    assert protocol.parsed_too(plain) == plain


def test_where_parsers_are_compared_the_server_is_asked_to_parse() -> None:
    with chat_server(lambda number: chat("no call")) as server:
        config = {"base_urls": (server.url,), "model": "m", "server": "vllm", "tool_parsing": "compare"}
        backend = openai.start(openai.Config.model_validate(config))
        assert next(backend.generate([replace(ASKED, tools=TOOLS)], Sampling())).server_calls == []
        assert [body["tool_choice"] for body in server.bodies] == ["auto"]


def test_a_vllm_without_a_parser_that_is_called_something_else_ends_the_run_with_the_way_out() -> None:
    said = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    error = {"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}
    with chat_server(lambda number: (400, error)) as server:
        backend = openai.start(openai.Config(base_urls=(server.url,), model="m"))
        with pytest.raises(BackendError, match=r"say backend\.server: vllm"):
            list(backend.generate([replace(ASKED, id=str(at), tools=TOOLS) for at in range(9)], Sampling()))


@pytest.mark.parametrize(
    ("text", "reason", "obeyed"),
    [
        ('{"a": 1}', "stop", True), ("[1]", "stop", False), ("Hello", "stop", False), ('{"a', "stop", False),
        ('{"a": "lo', "length", True), (' {\n "', "length", True), ("{", "length", True),
        ("Hello {", "length", False), ("{hello", "length", False), ("[", "length", False),
    ],
)  # fmt: skip
def test_an_object_that_the_limit_cut_obeys_the_object_mode(text: str, reason: str, obeyed: bool) -> None:
    assert protocol.obeyed(Constraint(kind="json_object"), chat(text, reason)) == obeyed
