"""What limits a run's numbers is said wherever they stand: rows that training has, metrics without gold."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfkdata import convert, load_rows
from dfkeval import evaluate, load_run
from dfkeval.cli.app import app
from dfkeval.evaluation import evaluate as evaluation
from dfkeval.evaluation import shards
from dfkeval.runs.config import EvalConfig
from tests.helpers.runs import DFK

WORDS = [f"kata{n}" for n in range(500)]


def sentence(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=30))


def posts(*texts: str, split: str, post: str = "") -> list[dict[str, Any]]:
    return [
        {"instruction": text, "output": f"yes {split}{at}", "split": split, "post": post or f"{split}{at}"}
        for at, text in enumerate(texts)
    ]


def converted(folder: Path, **options: Any) -> Path:
    """A conversion whose third and fourth test rows are nearly training rows, the fourth of one's group, too."""
    train = posts(sentence(1), sentence(2), split="train") + posts(sentence(3), split="train", post="shared")
    test = posts(sentence(11), sentence(12), sentence(1) + " lagi", split="test")
    test += [post | {"output": "last"} for post in posts(sentence(2) + " ya", split="test", post="shared")]
    source = folder / "raw.jsonl"
    folder.mkdir(exist_ok=True)
    source.write_text("".join(json.dumps(row) + "\n" for row in train + test))
    made = convert(source, folder / "data", format="alpaca", split_column="split", group_by="post", **options)
    assert made.splits == {"train": 3, "validation": 0, "test": 4}
    return made.folder / "test.jsonl"


def run_of(data: Path, out: Path, **changes: Any) -> evaluation.Run:
    return evaluate(config_of(data, out, **changes), out)


def config_of(data: Path, out: Path, **changes: Any) -> EvalConfig:
    rows = list(load_rows(data))
    answers = out.parent / f"{out.name}.answers.jsonl"
    answers.parent.mkdir(parents=True, exist_ok=True)
    answers.write_text("".join(json.dumps({"id": row["id"], "text": "yes"}) + "\n" for row in rows))
    made: dict[str, Any] = {
        "data": data, "schema": "answer", "metrics": ["answers"], "resamples": 100,
        "backend": {"kind": "scripted", "completions": str(answers)},
    }  # fmt: skip
    return EvalConfig.model_validate(made | changes)


KNOWN = {"groups": 1, "pictures": 0, "prompts": 2}


def test_what_convert_knows_stands_in_summary_and_reports(tmp_path: Path) -> None:
    run = run_of(converted(tmp_path), tmp_path / "run")
    assert run.summary["overlap"] == KNOWN
    assert json.loads((run.folder / "summary.json").read_text())["overlap"] == KNOWN
    for name in ("report.md", "report.html"):
        report = (run.folder / name).read_text()
        assert (
            "1 rows are of groups that training has; 2 rows ask what training rows ask, or nearly so"
            in report
        )
        assert report.index("shared with training") < report.index("answers.exact")


@pytest.mark.parametrize(("changes", "counts"), [
    ({"limit": 2}, {"groups": 0, "pictures": 0, "prompts": 0}),
    ({"limit": 3}, {"groups": 0, "pictures": 0, "prompts": 1}),
    ({"shard": "1/2"}, {"groups": 0, "pictures": 0, "prompts": 1}),
    ({"shard": "2/2"}, {"groups": 1, "pictures": 0, "prompts": 1}),
])  # fmt: skip
def test_only_rows_that_were_asked_count(
    changes: dict[str, Any], counts: dict[str, int], tmp_path: Path
) -> None:
    assert run_of(converted(tmp_path), tmp_path / "run", **changes).summary["overlap"] == counts


def test_merged_shards_say_what_the_whole_run_says(tmp_path: Path) -> None:
    config = config_of(converted(tmp_path), tmp_path / "run")
    for n in (1, 2):
        evaluate(config.model_copy(update={"shard": f"{n}/2"}), tmp_path / f"s{n}")
    assert shards.merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "whole").summary["overlap"] == KNOWN


def test_the_training_split_is_called_that(tmp_path: Path) -> None:
    data = converted(tmp_path).with_name("train.jsonl")
    run = run_of(data, tmp_path / "run", limit=2)
    assert run.summary["overlap"] == {"ids": 2}
    assert "2 rows are training rows, by their ids" in (run.folder / "report.md").read_text()


def outside(data: Path, folder: Path) -> Path:
    folder.mkdir()
    return Path(shutil.copy(data, folder / "test.jsonl"))


def changed(data: Path, folder: Path) -> Path:
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:2]))
    return data


def no_manifest(data: Path, folder: Path) -> Path:
    data.with_name("manifest.json").unlink()
    return data


def broken_manifest(data: Path, folder: Path) -> Path:
    data.with_name("manifest.json").write_text("{")
    return data


@pytest.mark.parametrize("way", [outside, changed, no_manifest, broken_manifest])
def test_what_is_not_known_is_not_spoken_of(way: Any, tmp_path: Path) -> None:
    run = run_of(way(converted(tmp_path), tmp_path / "elsewhere"), tmp_path / "run")
    assert "overlap" not in run.summary
    for name in ("report.md", "report.html"):
        assert (
            "overlap" not in (run.folder / name).read_text()
            and "training" not in (run.folder / name).read_text()
        )


def test_a_rule_that_was_off_is_not_no_overlap(tmp_path: Path) -> None:
    data = converted(tmp_path, rules={"TEXT_NEAR_DUPLICATE": "off", "GROUP_ACROSS": "off"})
    assert json.loads(data.with_name("manifest.json").read_text())["overlap"] == {"pictures": 0}
    assert run_of(data, tmp_path / "run").summary["overlap"] == {"pictures": 0}


def test_a_link_to_the_file_is_the_file_and_an_older_conversion_gives_its_totals(tmp_path: Path) -> None:
    data = converted(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(data)
    assert run_of(tmp_path / "link.jsonl", tmp_path / "linked").summary["overlap"] == KNOWN
    data.with_name("warnings.jsonl").unlink()
    assert run_of(data, tmp_path / "old").summary["overlap"] == KNOWN


def test_what_the_caller_knows_is_added_and_survives_a_new_score(tmp_path: Path) -> None:
    data = outside(converted(tmp_path), tmp_path / "elsewhere")
    run = evaluate(config_of(data, tmp_path / "run"), tmp_path / "run", overlap={"ids": 3})
    assert run.summary["overlap"] == {"ids": 3}
    assert evaluation.score(run.folder, metrics=["validity"]).summary["overlap"] == {"ids": 3}
    data.unlink()
    assert evaluation.score(run.folder).summary["overlap"] == {"ids": 3}
    assert "3 rows are training rows" in (run.folder / "report.md").read_text()


# ------------------------------------------------------------------------------------- metrics without gold


def ungraded(
    folder: Path, golds: list[dict[str, Any] | None], metrics: list[str], schema: str = "dfk_label"
) -> Path:
    """A configuration of rows with these golds; every answer is the same valid one."""
    rows = []
    for at, gold in enumerate(golds):
        turns = [{"role": "user", "content": [{"type": "text", "text": f"post {at}"}]}]
        meta = {"schema": schema, "group": str(at)} | ({} if gold is None else {"gold": gold})
        rows.append({"id": f"r{at}", "messages": turns, "images": [], "meta": meta})
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = {"text": "Label: netral\n\nAnalisis: isinya benar."}
    (folder / "answers.jsonl").write_text(
        "".join(json.dumps({"id": row["id"]} | answer) + "\n" for row in rows)
    )
    config = {
        "data": "rows.jsonl", "backend": {"kind": "scripted", "completions": "answers.jsonl"}, "metrics": metrics,
        "resamples": 100,
    }  # fmt: skip
    (folder / "eval.yaml").write_text(json.dumps(config))
    return folder / "eval.yaml"


GOLD = {"label": "netral", "analisis": "benar"}
BAD = {"label": "hoaks?", "analisis": "benar"}
BY_GOLD = ["labels", "rouge", "fields", "sita"]


def called(*words: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.parametrize("metric", BY_GOLD)
@pytest.mark.parametrize("golds", [[None, None], [BAD, BAD], [BAD, None]])
def test_a_metric_without_usable_gold_is_named_and_the_command_exits_with_1(
    metric: str, golds: list[Any], tmp_path: Path
) -> None:
    config = ungraded(tmp_path, golds, ["validity", metric])
    code, said = called("run", config, "--out", tmp_path / "run")
    assert code == 1 and f"metric {metric} has no number: no row has usable gold for it" in said
    run = load_run(tmp_path / "run")
    assert run.summary["unscored"] == {metric: "no row has usable gold"}
    for name in ("report.md", "report.html"):
        assert f"metric {metric} has no number" in (run.folder / name).read_text()
    code, said = called("score", tmp_path / "run")
    assert code == 1 and f"metric {metric} has no number" in said
    assert called("score", tmp_path / "run", "--metric", "validity")[0] == 0  # each metric by itself


@pytest.mark.parametrize("metric", BY_GOLD)
def test_one_usable_gold_is_enough(metric: str, tmp_path: Path) -> None:
    config = ungraded(tmp_path, [None, GOLD, BAD], [metric])
    code, said = called("run", config, "--out", tmp_path / "run")
    assert code == 0 and "has no number" not in said
    assert load_run(tmp_path / "run").summary["unscored"] == {}


@pytest.mark.parametrize("sign", ["<", ">"])
@pytest.mark.parametrize("command", ["run", "score"])
def test_a_condition_on_a_metric_without_gold_is_an_error(sign: str, command: str, tmp_path: Path) -> None:
    config = ungraded(tmp_path, [None, None], ["validity", "labels"])
    called("run", config, "--out", tmp_path / "run")
    words = ["run", config, "--out", tmp_path / "run"] if command == "run" else ["score", tmp_path / "run"]
    code, said = called(*words, "--fail-if", f"labels.macro_f1.value {sign} 0.5")
    assert code != 0 and "no row has usable gold for it, so the condition says nothing" in said
    assert (
        called(*words, "--fail-if", "validity.schema_valid.value < 0.5")[0] == 1
    )  # for the metric without gold


def test_a_shard_without_gold_says_so_and_is_no_failure(tmp_path: Path) -> None:
    config = ungraded(tmp_path, [None, GOLD], ["labels"])
    parts = [tmp_path / "1", tmp_path / "2"]
    for part in parts:
        code, said = called("run", config, "--out", part, "--shard", f"{part.name}/2")
        assert code == 0 and ("has no number" in said) == (part.name == "1")
    assert called("merge-runs", *parts, "--out", tmp_path / "whole")[0] == 0
    assert load_run(tmp_path / "whole").summary["unscored"] == {}


# --------------------------------------------------------------------------------------- classes without rows


def test_classes_that_no_row_has_are_named_and_full_data_is_not_spoken_of(tmp_path: Path) -> None:
    role: Any = DFK.roles["label"]
    labels = role.labels.canonical
    golds: list[Any] = [{"label": name, "analisis": "benar"} for name in labels]
    code, said = called("run", ungraded(tmp_path, golds, ["labels"]), "--out", tmp_path / "all")
    assert code == 0 and "no row has the gold" not in said
    code, said = called("run", ungraded(tmp_path, golds[:2], ["labels"]), "--out", tmp_path / "two")
    wanted = (
        f"no row has the gold {', '.join(labels[2:])}: macro averages are those of {', '.join(labels[:2])}"
    )
    assert code == 0 and wanted in " ".join(said.split())
    for name in ("report.md", "report.html"):
        assert wanted in (tmp_path / "two" / name).read_text()
