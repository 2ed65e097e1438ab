"""No page and no preview shows personal data if it is redacted; rows and answers on disk stay as they are."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkdata import convert, load_rows
from dfkdata.pages import picture
from dfkdata.reports.dataset_card import write_card
from dfkdata.reports.preview import preview, preview_page
from dfkdata.reports.row_text import ModelView
from dfkeval import reports
from dfkeval.analysis import comparison
from dfkeval.evaluation import evaluate
from dfkeval.runs.run import Run
from tests.helpers.html import block
from tests.helpers.runs import DFK, LABELS, answer_text, config_of, row_of

KINDS = {
    "handle": "@budi_santoso77",
    "link": "https://contoh.id/profil?x=1",
    "phone": "0812-3456-7890",
    "international": "+62 813 9876 5432",
    "email": "budi.s@contoh.co.id",
}
SAID = " dan ".join(KINDS.values())
# a difference between these falls into the middle of every item
CHANGED = (
    SAID.replace("santoso", "santosa")
    .replace("profil", "profile")
    .replace("3456", "3457")
    .replace("s@", "t@")
)


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(raw rows, the folder of their conversion)."""
    folder = tmp_path_factory.mktemp("posts")
    rows = []
    for index in range(12):
        Image.effect_noise((64, 48), 80 + index).save(folder / f"p{index}.png")
        post = {
            "title": f"Kabar {index} {SAID}",
            "link": f"https://contoh.id/{index}",
            "text": f"{SAID} {index}",
        }
        label = LABELS[index % 3] if index else SAID
        rows.append(post | {"img_path": f"p{index}.png", "label": label, "analisis": f"Dari {SAID}"})
    rows.append(
        rows[3] | {"img_path": f"{KINDS['handle']} {KINDS['phone']}.png", "link": "https://contoh.id/lain"}
    )
    raw = folder / "in.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return raw, convert(raw, folder / "out", format="dfk_csv", images=folder, validation=0.4).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    Image.effect_noise((64, 48), 90).save(folder / "p.png")
    rows = []
    for index in range(6):
        row = row_of(index, DFK)
        row["meta"]["gold"]["analisis"] = f"Dari {SAID} dan dua kata lagi"
        row["meta"]["platform"] = ("x", SAID)[index % 2]
        row["messages"][0]["content"].append({"type": "text", "text": f"{'kata ' * (index * 3)}{SAID}"})
        row["images"] = ["p.png"]
        rows.append(row | {"id": f"{SAID}-{index}"})
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = []
    for name, text in (("base", CHANGED), ("tuned", SAID)):
        said = [answer_text({"label": LABELS[at % 4], "analisis": f"Dari {text}"}, DFK) for at in range(5)]
        lines = [
            {"id": row["id"], "text": answer}
            for row, answer in zip(rows, [*said, f"tanpa {text}"], strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        config = config_of(folder / "test.jsonl", folder / f"{name}.jsonl", ["validity", "labels", "rouge"])
        made.append(evaluate.evaluate(config, folder / name))
    return made


Pages = dict[str, Callable[[bool], str]]


@pytest.fixture(scope="module")
def made(posts: tuple[Path, Path], runs: list[Run]) -> Pages:
    """Name of a page -> what writes it, given whether it is redacted."""
    raw, folder = posts
    out = folder.parent / "page.html"
    view = ModelView("m", "{{ t }}", "0", lambda row: str(row["messages"]))
    pair = comparison.compare(*runs)

    def card(redact: bool, **more: Any) -> str:
        return write_card(folder, out, redact=redact, **more).read_text(encoding="utf-8")

    def shown(redact: bool) -> str:
        page = preview_page(raw, "dfk_csv", out, 20, redact=redact, images=raw.parent)
        return page.read_text(encoding="utf-8")

    return {
        "dataset card": card,
        "data as a model sees it": lambda redact: card(redact, view=view),
        "preview": lambda redact: "\n".join(preview(raw, "dfk_csv", redact=redact, images=raw.parent)),
        "preview page": shown,
        "report": lambda redact: reports.page("run", runs[:1], redact=redact),
        "comparison": lambda redact: reports.page(SAID, runs, [pair], redact=redact),
    }


def visible(page: str) -> str:
    """Everything that a page holds, as one reads it: texts, attributes, and the values of its script."""
    values = [
        json.dumps(block(page, name), ensure_ascii=False) for name in re.findall(r'id="data-([\w-]+)"', page)
    ]
    return unicodedata.normalize("NFKC", html.unescape(page) + "".join(values))


@pytest.mark.parametrize(
    "name", ["dataset card", "data as a model sees it", "preview", "preview page", "report", "comparison"]
)
def test_a_redacted_page_holds_no_personal_data_of_any_kind(name: str, made: Pages, runs: list[Run]) -> None:
    plain, redacted = visible(made[name](False)), visible(made[name](True))
    for kind, text in KINDS.items():
        assert text in plain, kind
        pieces = [piece for piece in re.split(r"[-/ @?.:]+", text) if len(piece) > 5 and not piece.isdigit()]
        for part in (text, *pieces):
            assert part not in redacted, (kind, part)


@pytest.mark.parametrize("name", ["dataset card", "preview page", "report", "comparison"])
def test_every_picture_of_a_redacted_page_is_blurred(
    name: str, made: Pages, posts: tuple[Path, Path]
) -> None:
    uris = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")
    plain, redacted = (
        set(uris.findall(visible(made[name](False)))),
        set(uris.findall(visible(made[name](True)))),
    )
    assert plain and redacted and not plain & redacted
    assert picture(str(posts[0].parent / "p1.png"))


def test_rows_and_answers_on_disk_stay_as_they_are(
    made: Pages, posts: tuple[Path, Path], runs: list[Run]
) -> None:
    for write in made.values():
        write(True)
    assert all(SAID in json.dumps(row, ensure_ascii=False) for row in load_rows(posts[1] / "train.jsonl"))
    assert all(SAID in sample.text for sample in runs[1].samples)
