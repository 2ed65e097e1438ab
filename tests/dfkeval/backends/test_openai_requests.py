"""What the server backend sends: pictures, tools, settings, seeds and constraints."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from dfkdata.common.errors import ConfigError, DataError
from dfkdata.media.images import image_size, open_image
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._openai import protocol
from dfkeval.evaluation import constraints
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Constraint, Request, Sampling
from tests.helpers.hostile_server import Answer, Server, ask, asked, chat
from tests.helpers.pictures import KINDS
from tests.helpers.runs import CAPTION, DFK, write_rows


def test_the_request_carries_images_tools_and_settings(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    server = serve(lambda body, n: (200, chat("x")))
    (tmp_path / "p.png").write_bytes(KINDS["png"])
    parts = [{"type": "image"}, {"type": "text", "text": "q"}]
    request = Request(
        id="a",
        messages=[{"role": "user", "content": parts}],
        images=(str(tmp_path / "p.png"),),
        tools=CAPTION.tools,
    )
    ask(server.url, [request], sampling=Sampling(max_new_tokens=9, stop=("</tool_call>",), top_k=5))
    body = server.bodies[0]
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    assert url == "data:image/png;base64," + base64.b64encode(KINDS["png"]).decode()
    assert body["tools"] == CAPTION.tools
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["max_tokens"], body["stop"], body["top_k"], "top_p" in body) == (
        9,
        ["</tool_call>"],
        5,
        False,
    )


def test_a_missing_image_is_a_failed_request(serve: Callable[[Answer], Server]) -> None:
    request = Request(
        id="a", messages=[{"role": "user", "content": [{"type": "image"}]}], images=("nothing.png",)
    )
    found = ask(serve(lambda body, n: (200, chat("x"))).url, [request])["a"]
    assert found.finish_reason == "error" and "nothing.png" in str(found.error)


TAG = Constraint(kind="structural_tag", text='{"type": "structural_tag", "format": {"type": "any_text"}}')
GRAMMAR = constraints.constraint(DFK, "constrained")
assert GRAMMAR is not None
JSON_OBJECT = Constraint(kind="json_object")
ARRAY = Constraint(kind="json_schema", text='{"type": "array"}')
SENT_ARRAY = {"name": "answer", "schema": {"type": "array"}}


@pytest.mark.parametrize(
    ("server", "wanted", "sent"),
    [
        ("vllm", GRAMMAR, {"structured_outputs": {"grammar": GRAMMAR.text}}),
        ("vllm", TAG, {"structured_outputs": {"structural_tag": TAG.text}}),
        ("sglang", GRAMMAR, {"ebnf": GRAMMAR.text}),
        ("sglang", TAG, {"response_format": json.loads(TAG.text)}),
        ("other", JSON_OBJECT, {"response_format": {"type": "json_object"}}),
        ("other", ARRAY, {"response_format": {"type": "json_schema", "json_schema": SENT_ARRAY}}),
    ],
)
def test_constraints_travel_as_the_server_reads_them(
    server: Any, wanted: Constraint, sent: dict[str, Any]
) -> None:
    request = replace(asked(1)[0], constraint=wanted)
    found = openai.body(request, Sampling(), "m", server)
    assert sent.items() <= found.items()
    free = openai.body(asked(1)[0], Sampling(), "m", server)
    assert found.keys() - free.keys() == sent.keys()


def test_a_constraint_without_a_parameter_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    backend = {"kind": "openai", "base_urls": ["http://127.0.0.1:9/v1"], "model": "m"}
    config = EvalConfig.model_validate({"data": data, "backend": backend, "modes": ["constrained"]})
    with pytest.raises(ConfigError, match=r"say backend\.server: vllm or sglang"):
        evaluate(config, tmp_path / "run")
    thinking = {"thinking": True, "thinking_budget": 5}
    config = EvalConfig.model_validate({"data": data, "backend": backend, "sampling": thinking})
    with pytest.raises(ConfigError, match="thinking_budget: this protocol has no parameter"):
        evaluate(config, tmp_path / "run")
    assert openai.body(asked(1)[0], Sampling(**thinking), "m", "vllm")["thinking_token_budget"] == 5


@pytest.mark.parametrize("wanted", [GRAMMAR, JSON_OBJECT])
def test_a_server_that_ignores_constraints_is_found_out_and_nothing_is_asked(
    serve: Callable[[Answer], Server], wanted: Constraint
) -> None:
    server = serve(lambda body, n: (200, chat("Hello!")))
    requests = [replace(each, constraint=wanted) for each in asked(3)]
    with pytest.raises(ConfigError, match="ignores the"):
        ask(server.url, requests, server="vllm")
    assert len(server.bodies) == 1


def test_a_server_that_keeps_constraints_is_probed_once(serve: Callable[[Answer], Server]) -> None:
    def answer(body: dict[str, Any], attempt: int) -> tuple[int, bytes]:
        found = re.search(r'root ::= "([^"]+)"', body["structured_outputs"]["grammar"])
        return 200, chat(
            "Label: fitnah\n\nAnalisis: x" if "v0" in body["structured_outputs"]["grammar"] else found[1]
        )

    server = serve(answer)
    requests = [replace(each, constraint=GRAMMAR) for each in asked(3)]
    found = ask(server.url, requests, server="vllm")
    assert {each.text for each in found.values()} == {"Label: fitnah\n\nAnalisis: x"}
    assert len(server.bodies) == 4


def test_rows_and_drawings_are_drawn_with_seeds_of_their_own_and_greedy_ones_with_the_given() -> None:
    first, second = asked(2)

    def seed(request: Request, **more: Any) -> int:
        return int(openai.body(request, Sampling(**more), "m")["seed"])

    drawn = {"temperature": 0.5, "seed": 3}
    assert seed(first, **drawn) == seed(replace(first, id="other"), **drawn)
    others = [
        seed(second, **drawn),
        seed(replace(first, draw_index=1), **drawn),
        seed(first, temperature=0.5, seed=4),
    ]
    assert len({seed(first, **drawn), *others}) == 4
    assert seed(first, seed=3) == seed(second, seed=3) == 3


def test_an_embedded_picture_travels_as_it_is() -> None:
    uri = "data:image/png;base64," + base64.b64encode(KINDS["png"]).decode()
    request = Request(id="a", messages=[{"role": "user", "content": [{"type": "image"}]}], images=(uri,))
    found = openai.body(request, Sampling(), "m")
    assert found["messages"][0]["content"][0]["image_url"]["url"] == uri


def test_a_picture_that_is_changed_when_seen_travels_as_what_training_saw(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((60, 40), 50).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (60, 40), (0, 0, 0, 0)).save(tmp_path / "b.png")
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png")]
    paths.append("data:image/png;base64," + base64.b64encode((tmp_path / "b.png").read_bytes()).decode())
    server = serve(lambda body, n: (200, chat("x")))
    turn = {"role": "user", "content": [{"type": "image"}] * 3}
    ask(server.url, [Request(id="a", messages=[turn], images=tuple(paths))])
    for part, path in zip(server.bodies[0]["messages"][0]["content"], paths, strict=True):
        data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
        sent = Image.open(io.BytesIO(data))
        assert (sent.mode, sent.size) == ("RGB", image_size(path))
        assert sent.tobytes() == open_image(path).tobytes()


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
PLAIN = {"name": "f", "description": "d"}
FUNCTION = {"type": "function", "function": PLAIN | {"parameters": SCHEMA}}
WRITTEN = {
    "OpenAI": FUNCTION, "bare": PLAIN | {"parameters": SCHEMA}, "MCP": PLAIN | {"inputSchema": SCHEMA},
    "MCP list": {"tools": [PLAIN | {"inputSchema": SCHEMA}]}, "Anthropic": PLAIN | {"input_schema": SCHEMA},
    "Gemini": {"functionDeclarations": [PLAIN | {"parametersJsonSchema": SCHEMA}]},
    "Bedrock": {"toolSpec": PLAIN | {"inputSchema": {"json": SCHEMA}}},
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "transformers", "other"])
@pytest.mark.parametrize("form", WRITTEN)
def test_tools_of_every_form_are_sent_in_the_protocols(form: str, dialect: Any) -> None:
    other = {"type": "function", "function": {"name": "g", "strict": True}}
    request = Request(id="r7", messages=[{"role": "user", "content": "q"}], tools=[WRITTEN[form], other])
    assert protocol.body(request, Sampling(), "m", dialect)["tools"] == [FUNCTION, other]


@pytest.mark.parametrize("tool", [5, {}, {"name": 5}, PLAIN | {"type": "web_search_20250305"},
                                  PLAIN | {"schema": SCHEMA}], ids=str)  # fmt: skip
def test_a_tool_that_cannot_be_read_is_an_error_of_its_row(tool: Any) -> None:
    request = Request(id="r7", messages=[{"role": "user", "content": "q"}], tools=[FUNCTION, tool])
    with pytest.raises(DataError, match=r"row r7: tools\[1\]: .*tool"):
        protocol.body(request, Sampling(), "m")
