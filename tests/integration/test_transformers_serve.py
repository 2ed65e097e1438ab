"""`transformers serve` itself, with the built-in model: what the openai backend gets from it is what the local
backend says, also through LiteLLM's proxy. Skipped where their packages are missing (fastapi, openai,
torchvision; the command `litellm`, or its path in DFK_LITELLM)."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfkdata.common.errors import BackendError, ConfigError
from dfkeval import evaluate
from dfkeval.backends import openai, transformers
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, LabelSlot, Request, Sampling
from tests.helpers import real_servers
from tests.helpers.runs import DFK, write_rows

pytest.importorskip("torch")
SAMPLING = Sampling(max_new_tokens=60, stop=("</tool_call>", "\n> "))
COMMAND = "from transformers.cli.transformers import main; main()"


def why_not() -> str:
    """Why `transformers serve` cannot run here with pictures; empty if it can."""
    try:
        for package in ("fastapi", "openai", "uvicorn"):
            importlib.import_module(package)
        from torchvision.io import ImageReadMode, decode_image  # noqa: F401
        from torchvision.transforms.v2 import functional  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_servers.raw_copy(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    if why_not():
        pytest.skip(f"transformers serve cannot run: {why_not()}")
    port, log = real_servers.free_port(), folder.parent / "log"
    address = f"http://127.0.0.1:{port}"
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-c", COMMAND, "serve", str(folder), *options]
    with real_servers.process(command, log, env={"HF_HUB_OFFLINE": "1"}, healthy=f"{address}/health"):
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def local(folder: Path) -> dict[str, Completion]:
    backend = transformers.start(transformers.Config(model=str(folder), dtype="float32", device="cpu"))
    return answers(backend, folder.parent)


def answers(backend: object, folder: Path, sampling: Sampling = SAMPLING) -> dict[str, Completion]:
    asked = real_servers.questions(folder / "pictures", each=1)
    return {each.id: each for each in backend.generate(asked, sampling)}  # type: ignore[attr-defined]


def asked_of(url: str, folder: Path, **more: object) -> openai.Config:
    return openai.Config.model_validate(
        {"base_urls": (url,), "model": str(folder), "server": "transformers", "attempts": 2} | more
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_rows_with_pictures_and_tools_are_answered_as_the_local_backend_answers_them(
    server: str, folder: Path, local: dict[str, Completion], stream: bool
) -> None:
    got = answers(openai.start(asked_of(server, folder, stream=stream)), folder.parent)
    assert {name: each.error for name, each in got.items() if each.error} == {}
    for name, each in local.items():
        assert (got[name].text, got[name].finish_reason) == (each.text, each.finish_reason), name
        assert got[name].n_prompt_tokens == each.n_prompt_tokens, name
        assert not got[name].server_parsed
    assert any(each.text.endswith("</tool_call>") for each in got.values())


def test_a_whole_run_gets_the_outcomes_of_the_local_backend(
    server: str, folder: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "test.jsonl", DFK, 2)
    local = {"kind": "transformers", "model": str(folder), "dtype": "float32", "device": "cpu"}
    remote = asked_of(server, folder).model_dump(mode="json")
    fields = {"data": data, "resamples": 200, "sampling": {"max_new_tokens": 24}}
    runs = [
        evaluate(EvalConfig.model_validate(fields | {"backend": backend}), tmp_path / backend["kind"])
        for backend in (local, remote)
    ]
    assert runs[0].summary["outcomes"] == runs[1].summary["outcomes"]
    assert [sample.text for sample in runs[0].samples] == [sample.text for sample in runs[1].samples]


def test_drawing_is_drawing_though_the_folder_says_greedy(server: str, folder: Path) -> None:
    request = real_servers.questions(folder.parent / "pictures", each=1)[1]
    backend = openai.start(asked_of(server, folder, concurrency=1))
    draw = Sampling(max_new_tokens=24, temperature=3.0, seed=1)
    texts = {next(backend.generate([replaced(request, at)], draw)).text for at in range(3)}
    assert len(texts) > 1


def replaced(request: Request, draw: int) -> Request:
    return Request(id=request.id, messages=request.messages, tools=request.tools, draw_index=draw)


def test_the_documented_line_for_raw_answers_is_the_one_that_ran() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    block = text[text.index('"response_template"') :]
    assert json.loads("{" + block[: block.index("```")] + "}") == {
        "response_template": real_servers.RAW_ANSWERS
    }


def test_what_it_ignores_is_refused_by_name(folder: Path) -> None:
    request = Request(id="a", messages=[{"role": "user", "content": "x"}])
    backend = openai.OpenAI(asked_of("http://127.0.0.1:9/v1", folder), client=None)
    slot = LabelSlot(marker="Label: ", written={"a": "a"}, closing="")
    for more, what in (({"slot": slot}, "logprobs"), ({"force_tool": "f"}, "tool_choice")):
        asked = Request(id="a", messages=request.messages, **more)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"ignores {what}"):
            list(backend.generate([asked], Sampling()))


def test_an_unknown_model_ends_the_run_with_one_error(server: str, folder: Path) -> None:
    backend = openai.start(asked_of(server, folder, model="another"))
    with pytest.raises(BackendError, match=r"pinned to .*correct backend\.model"):
        answers(backend, folder.parent)


@pytest.fixture(scope="module")
def proxy(server: str, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy in front of the server, with one key."""
    command = os.environ.get("DFK_LITELLM") or shutil.which("litellm")
    if command is None:
        pytest.skip("the command litellm is not installed")
    config = folder.parent / "litellm.yaml"
    config.write_text(
        f"model_list: [{{model_name: dfk, litellm_params: {{model: openai/{folder}, api_base: '{server}', "
        "api_key: none}}]\ngeneral_settings: {master_key: sk-right}\n",
        encoding="utf-8",
    )
    port = real_servers.free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    with real_servers.process(
        [command, *arguments], folder.parent / "proxy.log", env=env, healthy=f"{address}/health/liveliness"
    ):
        yield f"{address}/v1"


@pytest.mark.server
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_behind_the_proxy_the_answers_are_the_same(
    proxy: str, folder: Path, local: dict[str, Completion], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_KEY", "sk-right")
    backend = openai.start(asked_of(proxy, folder, model="dfk", key="PROXY_KEY", stream=stream))
    got = answers(backend, folder.parent)
    assert {name: each.text for name, each in got.items()} == {
        name: each.text for name, each in local.items()
    }


@pytest.mark.server
@pytest.mark.parametrize("key", ["sk-wrong", None])
def test_a_wrong_or_missing_key_is_one_error_before_the_first_question(
    proxy: str, folder: Path, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_KEY", key or "")
    with pytest.raises(BackendError, match=r"correct backend\.key"):
        openai.start(asked_of(proxy, folder, model="dfk", key="PROXY_KEY" if key else None))


@pytest.mark.server
def test_a_model_that_the_proxy_does_not_know_ends_the_run(
    proxy: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_KEY", "sk-right")
    backend = openai.start(asked_of(proxy, folder, model="other", key="PROXY_KEY"))
    with pytest.raises(BackendError, match=r"correct backend\.model"):
        answers(backend, folder.parent)
