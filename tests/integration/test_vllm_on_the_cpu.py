"""vLLM itself on a CPU, with the built-in model in its wide shape: the `vllm` backend in this process, and vLLM's
server through the openai backend. Nothing of vLLM is replaced.

vLLM counts in bf16, so a text may leave the fp32 reference where the model guesses among tokens that are nearly as
likely: prompts are equal always, and texts where the model has learnt what to say."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata.common.errors import BackendError
from dfkeval import evaluate
from dfkeval.backends import openai, transformers, vllm
from dfkeval.runs.config import EvalConfig
from dfkeval.types import Completion, Request, Sampling
from tests.helpers import adapters, real_servers
from tests.helpers.runs import CAPTION, DFK, write_rows

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip
SAMPLING = Sampling(max_new_tokens=50, stop=("</tool_call>",))
ENGINE: dict[str, Any] = {
    "dtype": "bfloat16",
    "max_model_len": 2048,
    "images": 2,
    "engine_args": {"enforce_eager": True},
}
#: What the probe says of the adapters under vLLM 0.32.
TOLD = {"tuned": ", as locally", "gated": ", as locally", "gating": ", as locally", "seeing": "NO EFFECT"}
#: Questions of the kinds that the built-in model has learnt; elsewhere it guesses among near ties.
LEARNT = ("look", "tool", "both")


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tools.tiny_model import wide

    return wide.write(tmp_path_factory.mktemp("vllm") / "wide")


@pytest.fixture(scope="module")
def tuned(wide: Path) -> Path:
    """An adapter of the language model's attention and MLP."""
    return adapters.adapter(wide, wide.parent / "tuned", modules=r"language_model.*(self_attn|mlp)")


@pytest.fixture(scope="module")
def asked(wide: Path) -> list[Request]:
    return real_servers.questions(wide.parent / "pictures", each=2)


class Reference:
    """What the local backend says in fp32."""

    def __init__(self, model: Path, asked: list[Request], adapter: Path | None = None) -> None:
        config = transformers.Config(model=str(model), adapter=adapter, dtype="float32", device="cpu")
        self.backend: Any = transformers.start(config)
        self.answers = {each.id: each for each in self.backend.generate(asked, SAMPLING)}

    def check(self, got: dict[str, Completion]) -> None:
        """Check that prompts are as long, and texts equal: all where the model is sure, most of the others."""
        assert {name: each.error for name, each in got.items() if each.error} == {}
        for name, each in self.answers.items():
            assert got[name].n_prompt_tokens == each.n_prompt_tokens, name
            assert got[name].text == each.text or not name.startswith(LEARNT), (
                name,
                got[name].text,
                each.text,
            )
        equal = sum(got[name].text == each.text for name, each in self.answers.items())
        assert equal >= 0.7 * len(got)


@pytest.fixture(scope="module")
def reference(wide: Path, asked: list[Request]) -> Reference:
    return Reference(wide, asked)


def answers(backend: Any, asked: list[Request], sampling: Sampling = SAMPLING) -> dict[str, Completion]:
    return {each.id: each for each in backend.generate(asked, sampling)}


def test_the_backend_in_this_process_asks_and_answers_as_the_local_one(
    wide: Path, asked: list[Request], reference: Reference, tmp_path: Path
) -> None:
    backend = vllm.start(vllm.Config(model=str(wide), **ENGINE))
    try:
        got = answers(backend, asked)
        reference.check(got)
        assert any(each.text.endswith("</tool_call>") for each in got.values())
        assert backend.info["device"] == "cpu"
        for schema, name in ((CAPTION, "caption"), (DFK, "dfk_label")):
            data = write_rows(tmp_path / f"{name}.jsonl", schema, 3)
            fields = {"data": data, "schema": name, "modes": ["constrained"], "resamples": 200}
            settings = {
                "sampling": {"max_new_tokens": 90},
                "backend": {"kind": "vllm", "model": str(wide), **ENGINE},
            }
            run = evaluate(EvalConfig.model_validate(fields | settings), tmp_path / name, backend=backend)
            assert run.summary["outcomes"] == {"ok": 3}
    finally:
        backend.close()


def settings_of(folder: Path, data: Path, backend: dict[str, Any]) -> Path:
    path = folder / "eval.yaml"
    fields = {"data": str(data), "schema": "caption", "resamples": 200, "sampling": {"max_new_tokens": 40}}
    path.write_text(json.dumps(fields | {"backend": backend}), encoding="utf-8")
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", "from dfkeval.cli.app import main; main()", *map(str, words)]


def test_a_run_with_an_adapter_that_is_killed_goes_on_and_proves_the_adapter(
    wide: Path, tuned: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", CAPTION, 24)
    backend = {"kind": "vllm", "model": str(wide), "adapter": str(tuned), "chunk": 1, **ENGINE}
    config, run = settings_of(tmp_path, data, backend), tmp_path / "run"
    stored, log = run / "completions.jsonl", tmp_path / "log"
    with real_servers.process(command("run", config, "--out", run), log) as first:
        deadline = time.monotonic() + 400
        while lines(stored) < 3 and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert first.poll() is None, log.read_text(errors="replace")[-4000:]
        os.killpg(first.pid, signal.SIGKILL)
    before = stored.read_text(encoding="utf-8").splitlines()
    assert 3 <= len(before) < 24, log.read_text(errors="replace")[-2000:]
    subprocess.run(command("run", config, "--out", run), check=True, capture_output=True)
    after = stored.read_text(encoding="utf-8").splitlines()
    assert after[: len(before)] == before and len(after) == 24
    assert "of 3 probed rows" in (run / "report.md").read_text(encoding="utf-8")


def lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


@pytest.fixture(scope="module")
def gated(wide: Path) -> Path:
    """An adapter of the Gated DeltaNet projections alone."""
    return adapters.adapter(
        wide, wide.parent / "gated", modules=r"linear_attn\.(in_proj_qkv|in_proj_z|out_proj)"
    )


@pytest.fixture(scope="module")
def gating(wide: Path) -> Path:
    """An adapter of the two projections that gate a Gated DeltaNet layer."""
    return adapters.adapter(wide, wide.parent / "gating", modules=r"linear_attn\.in_proj_[ab]$")


@pytest.fixture(scope="module")
def seeing(wide: Path) -> Path:
    """An adapter of the vision tower alone."""
    return adapters.adapter(wide, wide.parent / "seeing", modules=r"visual\.blocks.*(qkv|proj|fc)")


@pytest.fixture(scope="module")
def serving(wide: Path, tuned: Path, gated: Path, gating: Path, seeing: Path) -> list[str]:
    """The command of vLLM's server. The wheel's own command `vllm` stops at `No package metadata was found for
    vllm`, because the package is called vllm-cpu; this module is the same server."""
    named = [f"{folder.name}={folder}" for folder in (tuned, gated, gating, seeing)]
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(wide), "--host", "127.0.0.1",
        "--served-model-name", "wide", "--chat-template", str(wide / "chat_template.jinja"), "--enforce-eager",
        "--generation-config", "vllm", "--limit-mm-per-prompt", '{"image": 2}', "--max-model-len", "2048",
        "--dtype", "bfloat16", "--enable-lora", "--max-lora-rank", "8", "--lora-modules", *named,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def server(serving: list[str], wide: Path) -> Iterator[str]:
    port = real_servers.free_port()
    address = f"http://127.0.0.1:{port}"
    log = wide.parent / "server.log"
    with real_servers.process([*serving, "--port", str(port)], log, healthy=f"{address}/health", seconds=500):
        yield f"{address}/v1"


def served(url: str, **more: Any) -> openai.Config:
    fields = {"base_urls": (url,), "model": "wide", "server": "vllm", "attempts": 2, "concurrency": 4}
    return openai.Config.model_validate(fields | more)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_the_server_without_a_tool_parser_is_shown_the_tools_and_gives_the_text(
    server: str, asked: list[Request], reference: Reference, stream: bool
) -> None:
    got = answers(openai.start(served(server, stream=stream)), asked)
    reference.check(got)
    assert not any(each.server_parsed for each in got.values())
    assert any(each.text.endswith("</tool_call>") for each in got.values())


def test_a_server_of_no_name_that_refuses_tools_is_one_error_with_the_way_out(
    server: str, asked: list[Request]
) -> None:
    with pytest.raises(BackendError, match=r"say backend\.server: vllm"):
        answers(openai.start(served(server, server="other")), [each for each in asked if each.tools])


@pytest.mark.parametrize("name", ["caption", "dfk_label"])
def test_answers_under_a_grammar_are_all_of_the_form_and_label_probabilities_sum_to_one(
    server: str, tmp_path: Path, name: str
) -> None:
    schema = CAPTION if name == "caption" else DFK
    fields = {
        "data": write_rows(tmp_path / "rows.jsonl", schema, 4), "schema": name, "modes": ["constrained"],
        "resamples": 200, "sampling": {"max_new_tokens": 90}, "confidences": name == "dfk_label",
        "backend": served(server).model_dump(mode="json"),
    }  # fmt: skip
    run = evaluate(EvalConfig.model_validate(fields), tmp_path / "run")
    assert run.summary["outcomes"] == {"ok": 4}
    for sample in run.samples if name == "dfk_label" else ():
        assert sample.label_probs is not None and sum(sample.label_probs.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["tuned", "gated", "gating", "seeing"])
def test_the_probe_says_which_adapters_the_server_uses_as_the_local_model_does(
    server: str, wide: Path, asked: list[Request], name: str
) -> None:
    pair = {"model": str(wide), "adapter": str(wide.parent / name)}
    backend: Any = openai.start(served(server, model=name, probe=pair))
    list(backend.generate([each for each in asked if each.images], SAMPLING))
    assert TOLD[name] in backend.info["adapter"]


def test_a_server_that_dies_ends_the_run_with_one_error_and_its_answers_are_kept(
    serving: list[str], wide: Path, tmp_path: Path
) -> None:
    port = real_servers.free_port()
    address, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    data = write_rows(tmp_path / "rows.jsonl", CAPTION, 40)
    backend = served(f"{address}/v1", concurrency=1).model_dump(mode="json")
    config, out = settings_of(tmp_path, data, backend), tmp_path / "run"
    with real_servers.process(
        [*serving, "--port", str(port)], log, healthy=f"{address}/health", seconds=500
    ) as made:
        asking = subprocess.Popen(
            command("run", config, "--out", out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while lines(out / "completions.jsonl") < 5 and asking.poll() is None:
            time.sleep(0.02)
        os.killpg(made.pid, signal.SIGKILL)
        said = asking.communicate(timeout=120)[0].decode()
    kept = lines(out / "completions.jsonl")
    assert asking.returncode != 0 and 5 <= kept < 40, said
    assert "run the same command again to go on" in " ".join(said.split())
    with real_servers.process([*serving, "--port", str(port)], log, healthy=f"{address}/health", seconds=500):
        subprocess.run(command("run", config, "--out", out), check=True, capture_output=True)
    assert lines(out / "completions.jsonl") >= 40
    ids = [
        json.loads(line)["id"] for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(set(ids)) == 40
