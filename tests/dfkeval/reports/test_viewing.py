"""The local page over many runs: a real client and a browser see history, comparisons and a run that goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from dfkdata.common.errors import ConfigError
from dfkdata.validation.overlap import KINDS
from dfkeval.inference.serving import server as serving
from dfkeval.inference.serving.limits import Limits
from dfkeval.reports.viewing.app import application
from dfkeval.reports.viewing.found import runs_below
from dfkeval.reports.viewing.pages import NEWEST, Viewer, answers
from tests.helpers.browser import Browser, opened
from tests.helpers.html import untranslated
from tests.helpers.runs import DFK, LABELS, evaluated, gold_answers

EVIL = "</td></script><script>document.title='owned'</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on the same rows, one of them deeper, one with a hostile answer; one that goes on; one broken."""
    folder = tmp_path_factory.mktemp("viewed")
    evaluated(folder, "a", {"r000": EVIL, "r001": "?"})
    evaluated(folder, "b", {"r001": "?"})
    (folder / "deep").mkdir()
    evaluated(folder, "deep/c", {})
    goes = folder / "runs/goes on"
    shutil.copytree(folder / "runs/b", goes)
    for name in ("summary.json", "samples.jsonl", "report.md", "report.html"):
        (goes / name).unlink()
    broken = folder / "runs/broken"
    shutil.copytree(folder / "runs/b", broken)
    (broken / "summary.json").write_text(f'{{"n": {json.dumps(EVIL)}}}')
    (folder / "runs/secret.txt").write_text("secret")
    return folder / "runs"


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """The address of a server over the runs."""
    app, limits = application(Viewer([home])), Limits(connections=32)
    server = uvicorn.Server(serving.config(app, limits, log_level="critical", timeout_graceful_shutdown=1))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=20), timeout=60) as made:
        yield made


def test_the_list_shows_history_runs_that_go_on_and_broken_ones(client: httpx.Client) -> None:
    text = client.get("/").text
    assert [text.index(f'href="/run/{name}"') for name in ("a", "b", "deep/c")]
    assert 'href="/run/goes%20on"' in text and ">12<" in text
    assert "broken: DataError" in text and "<svg" in text
    assert "1.000" in text and "+0.083" in text, "a value and its change to the run before"


def test_a_run_is_shown_by_the_code_that_writes_reports(client: httpx.Client, home: Path) -> None:
    shown = client.get("/run/deep/c").text
    assert 'id="data-report"' in shown and '<a href="/">' in shown
    pair = client.get("/compare", params=[("run", "a"), ("run", "deep/c")]).text
    assert "a → deep/c" in pair and EVIL not in pair and EVIL not in client.get("/run/a").text


def test_nothing_but_runs_is_reached_and_nothing_is_written(client: httpx.Client, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    for path in ("/run/../secret.txt", "/run/secret.txt", "/run/..%2fsecret.txt", "/run/%2e%2e/runs/a", "/run//a",
                 "/run/a/samples.jsonl", "/run/a%00", "/nothing", "/compare?run=a&run=../a"):  # fmt: skip
        answer = client.send(httpx.Request("GET", client.base_url.join(path)))
        assert answer.status_code == 404 and "secret" not in answer.text.replace("secret.txt", ""), path
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/compare?run=a").status_code == 422
    assert client.get("/compare", params=[("run", "a"), ("run", "goes on")]).status_code == 422
    assert client.get("/run/broken").status_code == 409
    assert client.post("/").status_code == 405
    assert before == {path: path.stat().st_mtime_ns for path in home.rglob("*")}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost@evil.example"])
def test_another_name_in_the_host_header_is_refused(client: httpx.Client, host: str) -> None:
    for path in ("/", "/state", "/run/a"):
        assert client.get(path, headers={"host": host}).status_code == 400
    assert client.get("/state", headers={"host": "LOCALHOST:1"}).status_code == 200


def test_a_line_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    lines = [json.dumps({"id": str(at), "text": f"{at} " + "x" * 20_000}) + "\n" for at in range(40)]
    path.write_text("".join(lines) + '{"id": "40", "te')
    count, newest = answers(tmp_path)
    assert count == 40 and [answer.id for answer in newest] == [
        str(at) for at in range(39, 39 - len(newest), -1)
    ]
    assert 0 < len(newest) < NEWEST, "only the end of a large file is read"
    path.write_text('{"id": "0"}\nno json\n' + lines[1])
    assert answers(tmp_path)[1][0].id == "1"
    assert answers(tmp_path / "gone") == (0, [])


def test_the_state_changes_with_the_files_of_a_run(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "a", tmp_path / "runs/a")
    viewer = Viewer([tmp_path / "runs"])
    all_, one, other = viewer.state(), viewer.state(["a"]), viewer.state(["b"])
    with (tmp_path / "runs/a/completions.jsonl").open("a") as file:
        file.write("{")
    assert viewer.state() != all_ and viewer.state(["a"]) != one and viewer.state(["b"]) == other


def test_names_are_those_below_the_folders_that_were_named(home: Path, tmp_path: Path) -> None:
    assert [run.name for run in runs_below([home])] == ["a", "b", "broken", "deep/c", "goes on"]
    assert [run.name for run in runs_below([home / "a"])] == ["a"]
    assert [run.name for run in runs_below([home / "deep", home / "b"])] == ["b", "deep/c"]
    (tmp_path / "link").symlink_to(home)
    assert runs_below([tmp_path]) == []
    with pytest.raises(ConfigError, match="no such folder"):
        runs_below([tmp_path / "gone"])


def test_no_page_keeps_words_of_another_language(home: Path, tmp_path: Path) -> None:
    """What two languages have alike is data or a technical name; a test of page and catalogue together."""
    english, indonesian = Viewer([home], "en"), Viewer([home], "id")
    runs = english.runs()
    shutil.copytree(home / "a", tmp_path / "one")
    summary = json.loads((tmp_path / "one/summary.json").read_text())
    summary |= {
        "overlap": dict.fromkeys(KINDS, 2),
        "unscored": {"rouge": "no row has usable gold", "labels": "no request was answered"},
    }
    (tmp_path / "one/summary.json").write_text(json.dumps(summary))
    warned = [Viewer([tmp_path], lang) for lang in ("en", "id")]
    pages = [(viewer.index(), viewer.run(runs["goes on"]), viewer.run(runs["a"]),
              viewer.comparison([runs["a"], runs["deep/c"]]), warning.run(warning.runs()["one"]))
             for viewer, warning in zip((english, indonesian), warned, strict=True)]  # fmt: skip
    data = [*LABELS, *runs, "a → deep/c", "a · deep/c", "model scripted", "backend scripted"]
    data += ["dfk_label · test.jsonl", "['validity', 'labels']", *(text for _, text in gold_answers(DFK, 12))]
    data += [path.read_text() for path in home.rglob("*.json*") if path.is_file()]
    for one, other in zip(*pages, strict=True):
        left = untranslated(one, other, data)
        assert [text for text in left if not text.startswith("broken: DataError")] == []  # as commands say it


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


@pytest.mark.browser
def test_runs_are_chosen_and_compared_and_a_run_that_ends_becomes_its_report(
    browser: Browser, url: str, home: Path
) -> None:
    browser.open(f"{url}/")
    assert browser.run("document.getElementById('compare').disabled")
    for name in ("deep/c", "a"):
        browser.click(f"input[value='{name}']")
    assert browser.text("#compare") == "Compare deep/c → a"
    browser.open(f"{url}/run/goes%20on")
    assert browser.text(".headline").startswith("12 answers so far")
    with (home / "goes on/completions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": EVIL}) + "\n")
    waited = "new Promise(done => {{ const look = () => {} ? done(1) : setTimeout(look, 50); look(); }})"
    browser.run(waited.format("document.querySelector('.headline').innerText.startsWith('13 ')"))
    assert EVIL in browser.text("#live tbody tr td") and browser.run("document.title") == "goes on"
    (home / "goes on/samples.jsonl").write_bytes((home / "b/samples.jsonl").read_bytes())
    (home / "goes on/summary.json").write_bytes((home / "b/summary.json").read_bytes())
    for _ in range(2000):
        with contextlib.suppress(AssertionError):  # the page is being read again
            if browser.run("document.getElementById('data-report') !== null"):
                break
            browser.settle()
    assert browser.run("document.getElementById('data-report') !== null")
    assert browser.errors == []
    assert all(address.startswith(url) for address in browser.requests)
