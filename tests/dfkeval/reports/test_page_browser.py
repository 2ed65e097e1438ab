"""The report in a browser, and what a browser goes by: the policy's hash, pictures, names of files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest
from PIL import Image

from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.evaluation import evaluate
from dfkeval.runs.run import Run
from tests.helpers.runs import DFK, answer_text, config_of, dfk_gold, row_of, write_answers

EVIL = "</pre><script>document.title='owned'</script><img src=x onerror=alert(2)>\"'&<b>"
GOOD = answer_text({**dfk_gold(0), "analisis": EVIL}, DFK)


def run_of(folder: Path, said: list[str], image: Path | None = None, name: str = "run") -> Run:
    """A scripted run whose ids, groups, prompts, golds and answers are hostile."""
    rows = []
    for index in range(len(said)):
        row = row_of(index, DFK)
        row["id"] += EVIL
        row["meta"]["group"] += EVIL
        row["meta"]["gold"]["analisis"] = EVIL
        row["messages"][0]["content"].append({"type": "text", "text": EVIL})
        row["images"] = [] if image is None else [str(image)]
        rows.append(row)
    data = folder / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [(row["id"], text) for row, text in zip(rows, said, strict=True)]
    scripted = write_answers(folder / "answers.jsonl", answers)
    return evaluate.evaluate(config_of(data, scripted, ["validity", "labels"]), folder / name)


def html_of(run: Run) -> str:
    return (run.folder / "report.html").read_text(encoding="utf-8")


def pictures(html: str) -> list[tuple[str, bytes]]:
    """(kind, bytes) of each picture in the page."""
    found = re.findall(r'<img [^>]*src="data:([^;]+);base64,([^"]+)"', html)
    return [(kind, base64.b64decode(data)) for kind, data in found]


def test_a_hostile_file_name_is_text_in_the_page(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(3)>.png"
    (tmp_path / evil).write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    html = html_of(run_of(tmp_path, [GOOD], tmp_path / evil))
    assert evil not in html
    assert f"picture not readable: {escape(evil)}" in html
    readable = '"onload=alert(4) ' + evil
    Image.new("RGB", (8, 8), "red").save(tmp_path / readable)
    html = html_of(run_of(tmp_path, [GOOD], tmp_path / readable, name="second"))
    assert f'alt="{escape(readable)}"' in html


def test_ids_prompts_golds_answers_and_run_names_are_shown_as_they_are(tmp_path: Path) -> None:
    run = run_of(tmp_path, [GOOD, f"Label: {EVIL}", EVIL, GOOD + EVIL, "", GOOD])
    other = run_of(tmp_path, ["?"] * 6, name="<b>other")
    html = reports.page(EVIL, [run, other], [comparison.compare(run, other)])
    assert "<script" not in html
    assert "<b>" not in html
    shown = unescape(html)
    for sample in run.samples:
        assert sample.id in shown
        assert sample.text in shown
        assert sample.prompt in shown
    assert "<b>other" in shown


def test_the_policy_allows_this_style_and_no_other(tmp_path: Path) -> None:
    html = html_of(run_of(tmp_path, [GOOD]))
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert dict(rule.strip().split(" ", 1) for rule in policy.split(";")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_a_picture_of_any_mode_is_a_small_jpeg_inside_the_page(tmp_path: Path) -> None:
    Image.new("RGBA", (900, 300), (255, 0, 0, 255)).save(tmp_path / "red.png")
    ((kind, data),) = pictures(html_of(run_of(tmp_path, [GOOD], tmp_path / "red.png")))
    assert kind == "image/jpeg"
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (200, 67)
        red, green, blue = small.convert("RGB").getpixel((100, 30))
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


def test_a_number_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["?"])
    run.summary["metrics"]["labels.accuracy"] = {"value": None, "low": None, "high": None, "n": 0}
    assert "| labels.accuracy | n/a |  | 0 |" in reports.markdown(run)
    assert "<strong>n/a</strong>" in reports.page("one", [run])


def test_runs_of_one_name_and_names_without_latin_letters_have_places_of_their_own(tmp_path: Path) -> None:
    runs = []
    for at in range(3):
        (tmp_path / str(at)).mkdir()
        runs.append(run_of(tmp_path / str(at), [GOOD, "?"], name="قط"))
    html = reports.page("three", runs, [comparison.compare(runs[0], other) for other in runs[1:]])
    places = re.findall(r'<section id="([^"]+)"', html)
    assert len(places) == len(set(places)) == 5
    assert re.findall(r'<a href="#([^"]+)">', html) == places


def test_a_huge_answer_is_cut_wherever_it_is_shown(tmp_path: Path) -> None:
    huge = answer_text({**dfk_gold(0), "analisis": "kata " * 200_000}, DFK)
    html = html_of(run_of(tmp_path, [huge, huge]))
    assert len(html) < 100_000
    assert html.count("more characters") == 4  # the answer and what was read from it, twice


@pytest.fixture
def chromium(tmp_path: Path) -> list[str]:
    """The command that opens a page without a window and without network services."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return [program, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600"]


@pytest.mark.browser
def test_a_browser_shows_the_page_and_runs_nothing_of_it(chromium: list[str], tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "teal.png")
    run = run_of(tmp_path, [GOOD, "?", EVIL], tmp_path / "teal.png")
    place, shot = (run.folder / "report.html").as_uri(), tmp_path / "page.png"
    taken = browse([*chromium, f"--screenshot={shot}", place])
    assert shot.is_file(), taken.stderr[-2000:]
    with Image.open(shot) as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert len(colours) > 50  # letters, bars and a photograph, smoothed
    assert max(colours.values()) < 0.98 * sum(colours.values())
    assert any(abs(r) < 20 and abs(g - 128) < 20 and abs(b - 128) < 20 for r, g, b in colours)  # the picture
    read = browse([*chromium, "--dump-dom", place]).stdout
    assert "<title>run</title>" in read


def browse(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
