"""Send a stopped run to the Hub, and resume it from there on another machine.

    checkpoint/resume.json                                  what belongs to the state, with hashes
    checkpoint/stages/NAME/{started,stage}.json, adapter/   a finished stage
    checkpoint/stages/NAME/started.json, checkpoints/checkpoint-N/    the stage under way

How it works: the files of a run's folder that `train` needs to go on are sent as they are and put back in the
same places; `train` then goes on as it does on the machine where the run was stopped.

Guarantees:
    - The run ends with the weights of an undisturbed one (CPU, fp32).
    - No folder of this machine is named in what is sent.
    - Every file that comes back has its recorded hash, and none is written outside the stages.
    - A folder appears whole or not at all, and its files are never overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common import json_files
from dfkdata.common.errors import BackendError, ConfigError
from dfkdata.common.hashing import file_sha256
from dfkeval.models import metadata
from dfkeval.models.families import WEIGHT_FILE
from dfktrain import hub
from dfktrain.training.checkpoints import last_complete

FOLDER = "checkpoint/"
INDEX = "resume.json"

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PLACE = re.compile(
    rf"^stages/{_NAME}/(?:started\.json|stage\.json|adapter/{_NAME}|checkpoints/checkpoint-\d+/{_NAME})$"
)
_SETTINGS = ("adapter_config.json", "config.json")
_STATE = re.compile(r"^(?:optimizer\.pt|scheduler\.pt|rng_state(?:_\d+)?\.pth|trainer_state\.json|complete)$")


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        finished: Number of finished stages.
        step: Step of the newest whole checkpoint of the stage under way, 0 if there is none.
    """

    finished: int
    step: int

    def __str__(self) -> str:
        return f"{self.finished} finished stages and step {self.step} of the next"


def plan(run: str | Path) -> list[hub.File]:
    """Return the files that a stopped run needs to go on elsewhere.

    These are the finished stages and the newest whole checkpoint of the stage under way.

    Raises:
        ConfigError: The run is finished, has no whole checkpoint, or was trained with sharded weights.
    """
    run = Path(run)
    if (run / "run.json").is_file():
        raise ConfigError(f"{run}: finished, there is nothing to resume; push it without --checkpoint")
    files = [file for stage in _stages(run) for file in _of_stage(run, stage)]
    if not files:
        raise ConfigError(f"{run}: no whole checkpoint yet; stages[].save_steps says when one is written")
    for file in files:
        hub.check_leak(file, run)
    index = {"format": 1, "state": vars(reached(run)), "files": {file.name: _sha256(file) for file in files}}
    index_file = hub.File(INDEX, json.dumps(index, indent=2).encode() + b"\n")
    return [hub.File(FOLDER + file.name, file.content) for file in (index_file, *files)]


def reached(run: Path) -> State:
    """Return how far the run in a folder is; a folder without a run has finished nothing."""
    steps = [_checkpoint(stage) for stage in _stages(run)]
    step = max((int(path.name.rpartition("-")[2]) for path in steps if path), default=0)
    return State(sum((stage / "stage.json").is_file() for stage in _stages(run)), step)


def restore(address: str, out: str | Path) -> State:
    """Download the state of a stopped run into the run's folder, unless the folder is as far or further.

    Args:
        address: hf://ORG/NAME[@REVISION].
        out: The run's folder.

    Returns:
        How far the run in `out` is.

    Raises:
        ConfigError: The folder holds a run that is less far, or the address has no state.
        BackendError: The download fails or does not match its hashes.
    """
    out = Path(out)
    index = _index(hub.download(address, (FOLDER + INDEX,)) / FOLDER / INDEX, address)
    remote, local = State(**index["state"]), reached(out)
    if (out / "stages").is_dir():
        if (local.finished, local.step) < (remote.finished, remote.step):
            raise ConfigError(
                f"{out} holds a run that is less far ({local}) than {address} ({remote}); choose another --out, "
                f"or leave --resume out to go on from what is there"
            )
        return local
    folder = hub.download(address, [FOLDER + name for name in index["files"]]) / FOLDER
    part = out / f".resume-{os.getpid()}"
    try:
        for name, sha256 in index["files"].items():
            _put(folder / name, part / name, sha256, address)
        _rebase_best(part, out)
        (part / "stages").rename(out / "stages")
    except OSError as error:
        if not (out / "stages").is_dir():  # another process of this run was faster
            raise BackendError(f"{address}: cannot be put into {out}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return remote


def _stages(run: Path) -> list[Path]:
    return sorted(path.parent for path in (run / "stages").glob("*/started.json"))


def _checkpoint(stage: Path) -> Path | None:
    """Return the newest whole checkpoint of a stage that is not finished."""
    return None if (stage / "stage.json").is_file() else last_complete(stage / "checkpoints")


def _of_stage(run: Path, stage: Path) -> Iterator[hub.File]:
    at = stage.relative_to(run).as_posix()
    started = hub.File(f"{at}/started.json", (stage / "started.json").read_bytes())
    if (stage / "stage.json").is_file():
        yield started
        yield hub.File(f"{at}/stage.json", _without_folders(stage / "stage.json"))
        yield from _weights(run, stage / "adapter")
        return
    newest = _checkpoint(stage)
    if newest is None:
        return
    yield started
    yield from _weights(run, newest)
    yield from _trainer_state(run, newest)


def _weights(run: Path, folder: Path) -> Iterator[hub.File]:
    for path in sorted(folder.iterdir()):
        if WEIGHT_FILE.match(path.name) or path.name in (*_SETTINGS, metadata.NAME, "chat_template.jinja"):
            yield hub.File(path.relative_to(run).as_posix(), hub.public_content(path))


def _trainer_state(run: Path, newest: Path) -> Iterator[hub.File]:
    """Yield optimiser, scheduler, random states and the Trainer's state, and the best weights if they are kept."""
    if not (newest / "optimizer.pt").is_file():
        raise ConfigError(f"{newest}: no optimizer.pt; states of sharded training are not sent to the Hub")
    for path in sorted(newest.iterdir()):
        if not _STATE.match(path.name):
            continue
        content: bytes | Path = path
        if path.name == "trainer_state.json":
            state = json_files.read_json(path)
            best = newest.parent / Path(state.get("best_model_checkpoint") or "").name
            if state.get("best_model_checkpoint"):
                state["best_model_checkpoint"] = best.name
                yield from _weights(run, best) if best != newest else ()
            content = json.dumps(state, indent=2, sort_keys=True).encode() + b"\n"
        yield hub.File(path.relative_to(run).as_posix(), content)


def _without_folders(path: Path) -> bytes:
    """Return stage.json with the names of its data files instead of their paths."""
    record = json_files.read_json(path)
    named: dict[str, str] = {}
    for at, (file, sha256) in enumerate(record["data_sha256"].items()):
        name = Path(file).name
        named[f"{at}/{name}" if name in named else name] = sha256
    return json.dumps(record | {"data_sha256": named}, indent=2, ensure_ascii=False).encode() + b"\n"


def _sha256(file: hub.File) -> str:
    if isinstance(file.content, bytes):
        return hashlib.sha256(file.content).hexdigest()
    return file_sha256(file.content)


def _index(path: Path, address: str) -> Mapping[str, Any]:
    """Return the checked contents of resume.json, whose file names all lie in the stages."""
    record = json_files.read_json_or_none(path)
    if record is None:
        raise ConfigError(
            f"{address}: holds no state to resume; dfktrain push RUN --checkpoint sends one. To train on "
            f"from its weights alone write adapter.warm_start: {address}"
        )
    state, files = record.get("state"), record.get("files")
    sound = isinstance(state, dict) and isinstance(files, dict) and state.keys() == {"finished", "step"}
    if not sound or record.get("format") != 1 or not all(map(_PLACE.match, files or ())):
        raise BackendError(f"{address}: {FOLDER}{INDEX} is not of the form that dfktrain push writes")
    return record


def _put(source: Path, target: Path, sha256: str, address: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        raise BackendError(f"{address}: {target.name} is missing")
    shutil.copyfile(source, target)
    if file_sha256(target) != sha256:
        raise BackendError(f"{address}: {target.name} is not the file that was pushed (its hash differs)")


def _rebase_best(part: Path, out: Path) -> None:
    """Change the recorded path of the best checkpoint to its place below `out`."""
    for path in part.glob("stages/*/checkpoints/*/trainer_state.json"):
        state = json_files.read_json(path)
        if state.get("best_model_checkpoint"):
            home = out / path.relative_to(part).parent.parent / Path(state["best_model_checkpoint"]).name
            json_files.write_json(path, state | {"best_model_checkpoint": str(home)}, floats="repr")
