"""Read and write run directories: everything that is needed to check, repeat and score a run again.

    config.json         the resolved configuration and the hash of the data file
    environment.json    versions, hardware, model and template hashes, throughput
    completions.jsonl   every completion verbatim, appended and flushed as it comes
    likelihoods.jsonl   likelihood of each gold answer, if a metric needs it; appended likewise
    samples.jsonl       one graded sample a line, in data order
    summary.json        counts of outcomes, and every metric with its interval
    report.md, report.html

Guarantees:

- A killed run loses at most what was in flight.
- A run is resumed only with the same `AnswerIdentity` on the same data, and two processes never write into
  one folder.
- Every file that is not appended to is written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dfkdata.common import jsonl, locks
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.json_files import read_json, write_json
from dfkdata.common.stored_lines import StoredById, StoredLines
from dfkeval.runs.config import answer_identity
from dfkeval.types import OUTCOMES, Completion, Likelihood, Sample

CONFIG, ENVIRONMENT, COMPLETIONS = "config.json", "environment.json", "completions.jsonl"
LIKELIHOODS = "likelihoods.jsonl"
SAMPLES, SUMMARY, REPORT_MD, REPORT_HTML = "samples.jsonl", "summary.json", "report.md", "report.html"
FORMAT = 1

Line = TypeVar("Line", Completion, Likelihood)


class RunDirectory:
    """One run directory.

    Args:
        folder: Its path; nothing is read or written yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        """Return the path of a file of this run."""
        return self.folder / name

    @contextmanager
    def alone(self, *, else_: str = " or give another --out") -> Iterator[None]:
        """Keep the folder to this process. Raises `ConfigError` if another one has it, or if it is a file."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder}: is a file; give another --out")
        with locks.alone(self.path(locks.LOCK), else_=else_):
            for left in self.folder.glob("*.part"):  # of a process that was killed
                left.unlink()
            yield

    def begin(self, config: dict[str, Any], data_sha256: str, *, overwrite: bool = False) -> None:
        """Create the directory, or continue in it.

        Args:
            config: The record of the configuration.
            data_sha256: Hash of the data.
            overwrite: Whether another run in it is thrown away.

        Raises:
            ConfigError: It holds a run with another configuration or other data, or files of something else.
        """
        record = {"format": FORMAT, "data_sha256": data_sha256, "config": config}
        if self.path(CONFIG).exists() and not overwrite:
            if self._asked():  # a run whose backend never started binds nobody
                self._check_same(record)
        elif self.folder.exists() and self._holds_something():
            if not overwrite:
                raise ConfigError(f"{self.folder}: not empty and not a run; give another --out")
            if not self.path(CONFIG).exists():
                raise ConfigError(
                    f"{self.folder}: holds no run, so nothing there is overwritten; give another --out"
                )
            for name in (COMPLETIONS, LIKELIHOODS, SAMPLES, SUMMARY, REPORT_MD, REPORT_HTML, ENVIRONMENT):
                self.path(name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path(CONFIG), record)

    def _holds_something(self) -> bool:
        """Return whether there is more in the folder than what a kill at the very start leaves."""
        return any(path.name not in (f"{CONFIG}.part", locks.LOCK) for path in self.folder.iterdir())

    def _asked(self) -> bool:
        """Return whether the folder holds any answer, whole or half-written."""
        path = self.path(COMPLETIONS)
        return path.exists() and path.stat().st_size > 0

    def _check_same(self, record: dict[str, Any]) -> None:
        old = self.config()
        if old["data_sha256"] != record["data_sha256"]:
            raise ConfigError(f"{self.folder}: holds a run on other data; give another --out, or --overwrite")
        changed = answer_identity(old["config"]).changed_settings(answer_identity(record["config"]))
        if changed:
            raise ConfigError(
                f"{self.folder}: holds a run with another configuration ({', '.join(changed)} differ); "
                "give another --out, or --overwrite"
            )

    def config(self) -> dict[str, Any]:
        """Return {"format", "data_sha256", "config"}. Raises `DataError` if this is not a run directory."""
        record = read_json(self.path(CONFIG), f"is {self.folder} a run directory?")
        if record.get("format") != FORMAT:
            raise DataError(
                f"{self.path(CONFIG)}: format {record.get('format')} is not one that this version reads"
            )
        return record

    def environment(self) -> dict[str, Any]:
        """Return what the answers depend on besides the configuration; empty before anything was asked."""
        path = self.path(ENVIRONMENT)
        return read_json(path) if path.exists() else {}

    def completions(self) -> Mapping[str, Completion]:
        """Return the last completion of each id; a half-written last line, which a kill leaves, does not
        count."""
        return self._by_id(COMPLETIONS, Completion)

    def answered(self) -> set[str]:
        """Return the ids whose last completion is an answer."""
        names = set[str]()
        for _, completion in jsonl.read_finished(self.path(COMPLETIONS), Completion, "a completion"):
            (names.discard if completion.error else names.add)(completion.id)
        return names

    def likelihoods(self) -> Mapping[str, Likelihood]:
        """Return the last likelihood of each id."""
        return self._by_id(LIKELIHOODS, Likelihood)

    def _by_id(self, name: str, kind: type[Line]) -> Mapping[str, Line]:
        """Return the last value of each id, which stays in its file."""
        path, decoder = self.path(name), msgspec.json.Decoder(kind)
        if not path.exists():
            return {}

        def read(line: bytes, number: int) -> Line:
            try:
                return decoder.decode(line)
            except msgspec.MsgspecError as error:
                what = f"a {kind.__name__.lower()}"
                raise DataError(f"{path}:{number}: not {what} ({error}); give another --out") from error

        values = StoredLines(path, read)
        lines = enumerate(values.scan(finished=True))
        return StoredById(values, {read(line, number).id: place for place, (number, line) in lines})

    def append(self, completions: Iterable[Completion]) -> Iterator[Completion]:
        """Write each completion as it comes and pass it on, after a half-written last line is cut off."""
        return self._append(COMPLETIONS, completions)

    def append_likelihoods(self, likelihoods: Iterable[Likelihood]) -> Iterator[Likelihood]:
        """Write each likelihood as it comes and pass it on (see `append`)."""
        return self._append(LIKELIHOODS, likelihoods)

    def _append(self, name: str, lines: Iterable[Line]) -> Iterator[Line]:
        with jsonl.JsonlAppender(self.path(name)) as file:
            for line in lines:
                file.put(line)
                yield line

    def write_samples(self, samples: Iterable[Sample]) -> None:
        """Replace samples.jsonl."""
        jsonl.write_lines(self.path(SAMPLES), samples)

    def samples(self) -> Sequence[Sample]:
        """Return the graded samples, which stay in their file. Raises `DataError` if the run has not been scored."""
        path = self.path(SAMPLES)
        if not path.exists():
            raise DataError(f"{self.folder}: has no {SAMPLES}; run `dfkeval score {self.folder}` first")
        decoder = msgspec.json.Decoder(Sample)

        def read(line: bytes, number: int) -> Sample:
            try:
                return decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DataError(
                    f"{path}:{number}: not samples of this version ({error}); run `dfkeval score` again"
                ) from error

        samples = StoredLines(path, read)
        for number, line in samples.scan():
            outcome = read(line, number).outcome
            if outcome not in OUTCOMES:
                raise DataError(
                    f"{path}:{number}: the outcome {outcome!r:.60} is none; run `dfkeval score` again"
                )
        return samples


def read_summary(folder: Path) -> dict[str, Any]:
    """Return summary.json of a run. Raises `DataError` if there is none, or if it is something else."""
    path = folder / SUMMARY
    summary = read_json(path, f"is {folder} a run directory?")
    shape = {"n": int, "outcomes": dict, "metrics": dict, "details": dict}
    fits = all(isinstance(summary.get(key), kind) for key, kind in shape.items())
    if not fits or not all(map(_is_estimate, summary["metrics"].values())):
        raise DataError(f"{path}: not the summary of a run; run `dfkeval score {folder}` again")
    return summary


def _is_estimate(value: Any) -> bool:
    """Return whether this is {"value", "low", "high", "n"}, with numbers or null."""
    if not isinstance(value, dict):
        return False
    numbers = (value.get(part, "") for part in ("value", "low", "high"))
    return isinstance(value.get("n"), int) and all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool)) for each in numbers
    )
