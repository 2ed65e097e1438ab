"""The adapter probe: what it says of servers that use an adapter, ignore it, or use half of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dfkdata.common.errors import ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai
from dfkeval.backends._adapter_probe import Answered, ProbedRow, off_by, verdict
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Request, Sampling
from tests.helpers import adapters
from tests.helpers.runs import DFK, write_rows
from tests.helpers.servers import ChatServer, chat

BASE = {"Label": -0.1, "Ya": -2.5, "Tidak": -4.0}
TUNED = {"Label": -1.4, "Ya": -0.4, "Tidak": -4.2}
ASKED = [
    Request(id=f"r{at}", messages=[{"role": "user", "content": [{"type": "text", "text": f"q{at}"}]}])
    for at in range(5)
]
#: What a server says as a model: (text, log-probabilities of its first token or None).
Says = Callable[[str, int], tuple[str, Mapping[str, float] | None]]


class Server:
    """Says what `says(model, number of the request)` gives; its list of models names a parent."""

    def __init__(self, says: Says, parent: str | None = "base", refuses_logprobs: bool = False) -> None:
        entries = [{"id": "base"}, {"id": "tuned", "parent": parent}]
        self.server = ChatServer(self.answer)
        self.says, self.refuses = says, refuses_logprobs
        content = json.dumps({"data": entries}).encode()
        handler: Any = self.server.http.RequestHandlerClass
        handler.do_GET = lambda each: each.send(200, "application/json", content)

    def answer(self, number: int) -> Any:
        body = self.server.bodies[number - 1]
        if self.refuses and "logprobs" in body:
            return 400, {"error": {"message": "logprobs are not supported", "code": 400}}
        text, first = self.says(body["model"], number)
        more = {}
        if first is not None and body.get("logprobs"):
            steps = [{"token": token, "logprob": value} for token, value in first.items()]
            more["logprobs"] = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": steps}]}
        return chat(text, **more)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *trouble: object) -> None:
        self.server.close()

    def asked(self, requests: list[Request], **more: Any) -> tuple[list[Completion], str]:
        """The answers, and what the record says of the adapter."""
        fields = {"base_urls": (self.server.url,), "model": "tuned", "concurrency": 1, "attempts": 1}
        backend: Any = openai.start(openai.Config.model_validate(fields | more))
        return list(backend.generate(requests, Sampling())), backend.info["adapter"]


def ignoring(model: str, number: int) -> tuple[str, Mapping[str, float]]:
    return "same", BASE


def honouring(model: str, number: int) -> tuple[str, Mapping[str, float]]:
    return "same", TUNED if model == "tuned" else BASE


def restless(model: str, number: int) -> tuple[str, Mapping[str, float]]:
    """As a busy server in bf16: its own numbers differ from one time to the next."""
    return "same", {token: value + 0.05 * (number % 3) for token, value in BASE.items()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("says", "told"),
    [
        (ignoring, "NO EFFECT: the adapter changes 0 of 3 probed rows against base"),
        (restless, "NO EFFECT"),
        (honouring, "the adapter changes 3 of 3 probed rows against base"),
        (lambda model, number: (model, BASE), "the adapter changes 3 of 3 probed rows against base"),
        (lambda model, number: (model, None), "changes 3 of 3 probed rows against base (texts alone"),
        (lambda model, number: ("same", None), "NO EFFECT"),
    ],
)
def test_a_server_is_asked_for_base_and_adapter_and_the_record_says_what_came(
    says: Says, told: str, stream: bool
) -> None:
    with Server(says) as server:
        got, adapter = server.asked(ASKED, stream=stream)
        assert told in adapter and len(got) == len(ASKED)
        models = [body["model"] for body in server.server.bodies]
        assert models == ["base", "tuned", "base"] * 3 + ["tuned"] * 5


def test_a_server_that_refuses_logprobs_is_asked_without() -> None:
    with Server(lambda model, number: (model, BASE), refuses_logprobs=True) as server:
        assert "texts alone" in server.asked(ASKED)[1]


def test_without_a_name_for_the_base_nothing_is_asked_and_a_given_name_counts() -> None:
    with Server(honouring, parent=None) as server:
        assert server.asked(ASKED[:2])[1].startswith("unverified")
        assert len(server.server.bodies) == 2
        assert "against other" in server.asked(ASKED[:2], probe={"base": "other"})[1]


def test_a_probe_that_fails_costs_no_answer() -> None:
    def answer(model: str, number: int) -> tuple[str, Mapping[str, float]]:
        if model == "base":
            raise AssertionError("not asked")
        return "yes", TUNED

    with Server(answer) as server:
        server.server.http.RequestHandlerClass.do_POST = refuse_base(server)  # type: ignore[attr-defined]
        got, adapter = server.asked(ASKED)
        assert [each.text for each in got] == ["yes"] * 5
        assert adapter.startswith("unverified: the probe was not answered")


def refuse_base(server: Server) -> Callable[[Any], None]:
    def post(each: Any) -> None:
        body = json.loads(each.rfile.read(int(each.headers["content-length"])))
        status = 404 if body["model"] == "base" else 200
        each.send(status, "application/json", json.dumps(chat("yes") if status == 200 else {}).encode())

    return post


def test_single_questions_one_after_another_are_probed_until_three_were() -> None:
    with Server(honouring) as server:
        fields = {"base_urls": (server.server.url,), "model": "tuned", "concurrency": 1}
        backend: Any = openai.start(openai.Config.model_validate(fields))
        for request in ASKED:
            assert len(list(backend.generate([request], Sampling()))) == 1
        assert "3 of 3" in backend.info["adapter"]
        assert len(server.server.bodies) == 3 * 3 + 5


@pytest.mark.parametrize("says", [ignoring, honouring])
def test_the_reports_say_it(says: Says, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 4)
    with Server(says) as server:
        backend = {"kind": "openai", "base_urls": [server.server.url], "model": "tuned", "attempts": 1}
        config = EvalConfig.model_validate({"data": data, "backend": backend, "resamples": 200})
        run = evaluate(config, tmp_path / "run")
    told = "NO EFFECT" if says is ignoring else "the adapter changes 3 of 3 probed rows"
    for name in ("report.md", "report.html"):
        assert told in (run.folder / name).read_text(encoding="utf-8")


def test_a_server_that_leaves_out_half_of_an_adapter_does_not_do_as_the_local_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from dfkeval.backends._local.first_token import first_tokens
    from dfkeval.models import tiny

    adapter = adapters.adapter(tiny.path(), tmp_path / "whole", modules=r"language_model.*(mlp|linear_attn)")
    half = adapters.adapter(tiny.path(), tmp_path / "half", modules=r"language_model.*mlp")
    local = first_tokens("tiny", adapter, ASKED[:3], Sampling())
    left_out = first_tokens("tiny", half, ASKED[:3], Sampling())

    def speaking(pairs: Any) -> Says:
        def says(model: str, number: int) -> tuple[str, Mapping[str, float]]:
            base, adapted = pairs[(number - 1) // 3 % 3]
            shown = (adapted if model == "tuned" else base).first
            return "same", {token: value + 0.003 for token, value in list(shown.items())[-20:]}

        return says

    pair = {"model": "tiny", "adapter": str(adapter)}
    for pairs, told in ((local, ", as locally"), (left_out, "NOT AS LOCALLY")):
        with Server(speaking(pairs)) as server:
            assert told in server.asked(ASKED[:3], probe=pair)[1]


def test_half_a_local_pair_is_refused() -> None:
    with pytest.raises((ConfigError, ValueError), match="give model and adapter"):
        openai.Config.model_validate({"base_urls": ("http://x",), "model": "m", "probe": {"model": "tiny"}})


@given(st.dictionaries(st.text(max_size=3), st.floats(-20, 0), min_size=2), st.floats(0.0, 1.0))
@example({"": 0.0, "0": -1.0}, 0.0100001)
@example({"": 0.0, "0": -1.0}, 0.0099999)
@example({"": 0.0, "0": -1.0}, 0.6999999)
@example({"": 0.0, "0": -1.0}, 0.7000001)
def test_moves_that_are_the_local_ones_are_off_by_nothing_and_none_by_everything(
    base: dict[str, float], share: float
) -> None:
    assume(min(abs(share - bound) for bound in (0.01, 0.7)) > 1e-9)  # sums of floats there are a hair off
    after = {token: value - 1 for token, value in base.items()}
    partly = {token: value - share for token, value in base.items()}
    local = (Answered("", base), Answered("", after))
    row = ProbedRow(Answered("", base), Answered("", partly), Answered("", base), local)
    assert off_by([row]) == pytest.approx(1 - share)
    assert ("NOT AS LOCALLY" in verdict([row], "b")) == (0.01 < share < 0.7)


@pytest.mark.parametrize("says", [ignoring, honouring])
def test_a_service_says_it_under_healthz_and_predict_on_stderr(
    says: Says, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette")
    from starlette.testclient import TestClient

    from dfkeval import Predictor
    from dfkeval.cli import app
    from dfkeval.inference.serving.app import application

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"q{at}"}) + "\n" for at in range(4)), encoding="utf-8")
    with Server(says) as server:
        fields = {"kind": "openai", "base_urls": [server.server.url], "model": "tuned", "attempts": 1}
        backend = openai.start(openai.Config.model_validate(fields))
        with TestClient(application(Predictor(schema="answer", backend=backend))) as client:
            assert "adapter" not in client.get("/healthz").json()
            for at in range(3):
                assert client.post("/predict", json={"fields": {"question": f"q{at}"}}).status_code == 200
            told = client.get("/healthz").json()["adapter"]
        words = ["predict", "--schema", "answer", "--backend", json.dumps(fields), "--input", rows]
        monkeypatch.setattr("sys.argv", ["dfkeval", *map(str, words), "--out", str(tmp_path / "out.jsonl")])
        with pytest.raises(SystemExit):
            app.main()
    assert told.startswith("NO EFFECT" if says is ignoring else "the adapter changes 3 of 3")
    assert ("NO EFFECT" in capsys.readouterr().err) == (says is ignoring)
