"""Data sets on the Hub are read from a hub on this machine: configs, splits, and answers that are none."""

from __future__ import annotations

import http.client
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfkdata import convert, sources
from dfkdata.common.errors import ConfigError, DataError
from tests.helpers.pictures import KINDS
from tests.helpers.rows import caption, rows_of

ROWS = [caption(n, note="001", nothing=None, deep={"a": [1, 2.5, True]}) for n in range(5)]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


README = """---
configs:
- config_name: task_1
  data_files:
  - {split: train, path: data/task_1.jsonl}
- config_name: other
  data_files: data/other-*.jsonl
---
# A data set
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub of one data set on this machine; the list of what was asked."""
    files = {
        "README.md": README.encode(),
        "data/task_1.jsonl": jsonl(ROWS),
        "data/other-0.jsonl": jsonl([caption(77)]),
        "img/a.png": KINDS["png"],
    }
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/api/datasets/org/captions/revision/v2"):
                body = json.dumps(
                    {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in files]}
                ).encode()
            else:
                body = files.get(self.path.removeprefix("/datasets/org/captions/resolve/c0ffee/"), b"")
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


def test_a_data_set_on_the_hub_is_read_by_config_and_split(hub: list[str], tmp_path: Path) -> None:
    address = "hf://datasets/org/captions@v2"
    found = convert(
        address, tmp_path / "a", format="captions", validation=0, hub_config="task_1", hub_split="train"
    )
    assert found.rows["out"] == len(ROWS)
    found = convert(address, tmp_path / "b", format="captions", validation=0, hub_config="other")
    assert rows_of(tmp_path / "b", "train")[0]["meta"]["text"] == "A dog number 77."
    before = len(hub)
    again = convert(
        address, tmp_path / "a", format="captions", validation=0, hub_config="task_1", hub_split="train"
    )
    assert not again.fresh
    assert all("/resolve/" not in path for path in hub[before:]), "files come from the cache"
    with pytest.raises(ConfigError, match="it declares task_1, other"):
        convert(address, tmp_path / "c", format="captions", hub_config="task_9")


def test_of_several_configs_none_is_taken_unasked(hub: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"2 configs and no default \(task_1, other\); name one: --hub-config"
    ):
        convert("hf://datasets/org/captions@v2", tmp_path / "out", format="captions")
    found = convert(
        "hf://datasets/org/captions@v2/data/other-0.jsonl", tmp_path / "b", format="captions", validation=0
    )
    assert found.rows["out"] == 1, "a path says what is meant"


class Answer(io.BytesIO):
    """What `urlopen` gives."""

    def __exit__(self, *_: Any) -> None:
        self.close()


def hub_of(monkeypatch: pytest.MonkeyPatch, info: Any, readme: bytes = README.encode()) -> list[str]:
    """A hub that answers `info` about any data set, and the same row for any file; the list of what was
    asked."""
    asked: list[str] = []

    def answer(request: Any, timeout: float) -> Answer:
        asked.append(request.full_url)
        if "/api/" in request.full_url:
            return Answer(info if isinstance(info, bytes) else json.dumps(info).encode())
        return Answer(readme if request.full_url.endswith("README.md") else jsonl([caption(1)]))

    monkeypatch.setattr("urllib.request.urlopen", answer)
    return asked


@pytest.mark.parametrize(
    "name", ["/{0}/evil.jsonl", "../../evil.jsonl", "a\\..\\..\\evil.jsonl", "c:evil.jsonl"]
)
def test_a_hub_never_writes_outside_its_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    names = [name.format(tmp_path.as_posix().lstrip("/")), "good.jsonl"]
    hub_of(monkeypatch, {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in names]})
    (part,) = sources.parts("hf://datasets/org/any")
    assert part.name == "good.jsonl"
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["good.jsonl"]


@pytest.mark.parametrize("info", [b"<html>", b"[]", {"sha": "../../up"}, {"sha": 5}, {"siblings": []}])
def test_an_answer_that_is_none_of_a_hub_is_an_error(
    info: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub_of(monkeypatch, info)
    with pytest.raises(DataError, match="api/datasets/org/any/revision/main"):
        sources.parts("hf://datasets/org/any")


@pytest.mark.parametrize(
    ("head", "config", "found"),
    [
        ("configs: [{data_files: b.jsonl}]", "default", ["b.jsonl"]),
        (
            "configs: [{config_name: x, data_files: [{split: train, path: [a.jsonl, 7]}, 3]}]",
            "x",
            ["a.jsonl"],
        ),
        ("configs: [{config_name: x, data_files: b.jsonl}]", None, ["b.jsonl"]),
        ("configs: [{config_name: x, data_files: c.jsonl}, {config_name: z}]", "x", None),
        ("configs: [{config_name: x, data_files: '[z-a].jsonl'}]", "x", None),
        ("configs: [{config_name: x, data_files: '*.jsonl'}]", "x", ["a.jsonl", "b.jsonl"]),
        ("configs: [{config_name: x, data_files: '**/[b-c].jsonl'}]", "x", ["b.jsonl", "sub/c.jsonl"]),
        (
            "configs: [{config_name: x, data_files: '**'}]",
            "x",
            ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub2/d.JSONL"],
        ),
        ("configs: [{config_name: x, data_files: 'sub*/**'}]", "x", ["sub/c.jsonl", "sub2/d.JSONL"]),
        (
            "configs: [{config_name: x, data_files: a.jsonl}, {config_name: default, data_files: b.jsonl}]",
            None,
            ["b.jsonl"],
        ),
        (
            "configs: [{config_name: x}, {config_name: y, data_files: b.jsonl, default: true}]",
            None,
            ["b.jsonl"],
        ),
        ("configs: 5", None, ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub2/d.JSONL"]),
        ("- a list", None, ["a.jsonl", "b.jsonl", "sub/c.jsonl", "sub2/d.JSONL"]),
    ],
)
def test_the_head_of_a_readme_may_be_of_any_form(
    head: str, config: str | None, found: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    names = ["README.md", "a.jsonl", "b.jsonl", "sub/c.jsonl", "sub2/d.JSONL"]
    info = {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in names]}
    hub_of(monkeypatch, info, f"\ufeff---\n{head}\n---\n".encode())
    if found is None:  # a pattern starts at the data set's top, so c.jsonl is not sub/c.jsonl
        with pytest.raises(ConfigError, match=r"no data file for config|is not a pattern"):
            sources.parts("hf://datasets/org/any", config=config)
    else:
        assert [part.name for part in sources.parts("hf://datasets/org/any", config=config)] == found
    hub_of(monkeypatch, info)
    assert [part.name for part in sources.parts("hf://datasets/org/any/sub")] == ["sub/c.jsonl"]


@pytest.mark.parametrize("files", ["a.jsonl", "[a.jsonl]", "[{split: train, path: a.jsonl}]"])
def test_a_pattern_of_a_config_without_a_split_is_of_train(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    info = {"sha": "c0ffee", "siblings": [{"rfilename": "README.md"}, {"rfilename": "a.jsonl"}]}
    hub_of(monkeypatch, info, f"---\nconfigs: [{{config_name: x, data_files: {files}}}]\n---\n".encode())
    for split in (None, "train"):
        assert [part.name for part in sources.parts("hf://datasets/org/any", split=split)] == ["a.jsonl"]
    with pytest.raises(ConfigError, match="config 'x' has no split 'test'; it has train"):
        sources.parts("hf://datasets/org/any", split="test")


def test_a_readme_whose_head_is_not_yaml_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    info = {"sha": "c0ffee", "siblings": [{"rfilename": "README.md"}, {"rfilename": "a.jsonl"}]}
    hub_of(monkeypatch, info, b"---\nconfigs: [\xff\n---\n")
    with pytest.raises(ConfigError, match=r"README\.md of org/any: not YAML"):
        sources.parts("hf://datasets/org/any")


@pytest.mark.parametrize("error", [http.client.IncompleteRead(b"x"), ConnectionResetError("gone")])
def test_an_answer_of_the_hub_that_is_cut_off_is_an_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def cut(request: Any, timeout: float) -> Answer:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", cut)
    with pytest.raises(DataError, match="does not answer"):
        sources.parts("hf://datasets/org/any")


def test_a_hub_that_does_not_answer_is_an_error(hub: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the hub answers 404"):
        convert("hf://datasets/org/nothing@v2", tmp_path / "out", format="captions")
    with pytest.raises(ConfigError, match="write hf://datasets"):
        convert("hf://datasets/org", tmp_path / "out", format="captions")


@pytest.mark.parametrize(
    ("head", "names", "expected"),
    [
        ("", ["data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"], ["test", "train"]),
        ("", ["train.jsonl", "dev.jsonl"], ["validation", "train"]),
        ("", ["train.jsonl", "other.jsonl"], [None, None]),
        ("", ["a.jsonl", "b.jsonl"], [None, None]),
        (
            "configs: [{data_files: [{split: Valid, path: a.jsonl}, {split: train, path: b.jsonl}]}]",
            *(["a.jsonl", "b.jsonl"], ["validation", "train"]),
        ),
        (
            "configs: [{data_files: [{split: train_sft, path: a.jsonl}, {split: test_sft, path: b.jsonl}]}]",
            *(["a.jsonl", "b.jsonl"], [None, None]),
        ),
    ],
)
def test_splits_on_the_hub_stay_apart(
    head: str,
    names: list[str],
    expected: list[str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    files = [*names, *(["README.md"] if head else [])]
    info = {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in files]}
    hub_of(monkeypatch, info, f"---\n{head}\n---\n".encode())
    assert [part.split for part in sources.parts("hf://datasets/org/any")] == expected


def test_two_names_for_one_split_on_the_hub_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    names = ["dev.jsonl", "validation.jsonl", "train.jsonl"]
    hub_of(monkeypatch, {"sha": "c0ffee", "siblings": [{"rfilename": name} for name in names]})
    with pytest.raises(ConfigError, match=r"'dev' and 'validation' both mean validation.*--hub-split"):
        sources.parts("hf://datasets/org/any")
    assert [part.name for part in sources.parts("hf://datasets/org/any", split="dev")] == ["dev.jsonl"]
