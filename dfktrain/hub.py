"""Send weights to the Hugging Face Hub, and fetch adapters from it.

How it works: `plan` decides what would be sent, names and bytes; `send` hands exactly that to the Hub's client.

Guarantees:
    - Only weights, model card, `dfk.json` and curves leave the folder, and the state of a stopped run if it is
      asked for (`dfktrain.training.hub_resume`).
    - A file that names a token or a folder of this machine is refused; the base's folder is sent as a name.
    - The token comes from HF_TOKEN and is printed nowhere.
    - Nothing is sent or fetched unless an address was given."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkdata.common.credentials import from_environment, without_keys
from dfkdata.common.errors import BackendError, ConfigError, missing_package
from dfkdata.common.json_files import read_json
from dfkeval.models import adapters, metadata
from dfkeval.models.families import WEIGHT_FILE
from dfktrain.config.model import HUB
from dfktrain.config.run import TrainConfig
from dfktrain.config.sections import ModelCard
from dfktrain.reports import model_card
from dfktrain.reports.card_usage import HEADING

_BESIDE = (
    "adapter_config.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.jinja", "merge-report.json",
    metadata.NAME, model_card.NAME,
)  # fmt: skip
_NAME = re.compile(r"^[\w-][\w.-]*/[\w-][\w.-]*$")
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
_FETCHED = ("adapter_config.json", "adapter_model*.safetensors", metadata.NAME, "chat_template.jinja")


@dataclass(frozen=True)
class File:
    """One file to send.

    Attributes:
        name: Path in the repository.
        content: The bytes, or the file that holds them.
    """

    name: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def plan(run: str | Path) -> list[File]:
    """Return the files that would be sent.

    Args:
        run: Folder of a run, of an adapter or of a merged model.

    Raises:
        ConfigError: The folder holds no weights, or a file holds a token or a path of this machine.
    """
    run = Path(run)
    folder = run / "adapter" if (run / "run.json").is_file() else run
    files = [File(path.name, public_content(path)) for path in sorted(_files(folder))]
    if not any(WEIGHT_FILE.match(file.name) for file in files):
        raise ConfigError(
            f"{run}: neither a run's folder nor one with weights; give the --out of dfktrain run"
        )
    if folder != run:
        files = _with_curves(files, run)
    for file in files:
        check_leak(file, run)
    return files


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if (
            path.is_file()
            and not path.is_symlink()
            and (WEIGHT_FILE.match(path.name) or path.name in _BESIDE)
        ):
            yield path


def _with_curves(files: list[File], run: Path) -> list[File]:
    """Add the curves of the stages, and show them in the card."""
    pictures = sorted((run / "stages").glob("*/curves.png"))
    curves = [File(f"curves-{path.parent.name}.png", path) for path in pictures]
    links = "".join(
        f"\n![Loss of stage {path.parent.name}]({file.name})\n"
        for path, file in zip(pictures, curves, strict=True)
    )
    changed = []
    for file in files:
        if file.name == model_card.NAME and curves and isinstance(file.content, bytes):
            text = file.content.decode()
            before = next((at for part in (HEADING, "<details>") if (at := text.find(part)) >= 0), len(text))
            file = File(file.name, f"{text[:before]}## Curves\n{links}\n{text[before:]}".encode())
        changed.append(file)
    return [*changed, *curves]


def public_content(path: Path) -> bytes | Path:
    """Return what is sent of a file: weights as their path, other files as bytes with the base by its name."""
    if path.suffix == ".safetensors":
        return path
    if path.name == adapters.CONFIG_FILE:
        settings = read_json(path)
        settings["base_model_name_or_path"] = _base_name(path.parent, settings.get("base_model_name_or_path"))
        return json.dumps(settings, indent=2, sort_keys=True).encode() + b"\n"
    if path.name == metadata.NAME:
        card = read_json(path)
        if card.get("base"):
            card["base"]["name"] = _base_name(path.parent, card["base"]["name"])
        return json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n"
    return path.read_bytes()


def _base_name(folder: Path, name: str | None) -> str | None:
    """Return the base's name on the Hub as the run knows it, else the last part of a folder's path."""
    run = folder.parent / "run.json"
    if run.is_file():
        report = read_json(run)
        section = ModelCard.model_validate(report["config"].get("card") or {})
        name = model_card.base_model(report, section) or str(report["base"]["name"])
    if name is None:
        return None
    return Path(name).name if Path(name).is_absolute() or Path(name).is_dir() else name


def check_leak(file: File, run: Path) -> None:
    """Raise `ConfigError` if a text file holds a token, the home folder or the folder above the run."""
    if isinstance(file.content, Path):
        return
    secrets = [
        value.encode() for key in ("HF_TOKEN", "WANDB_API_KEY") if len(value := os.environ.get(key, "")) > 7
    ]
    if _TOKEN.search(file.content) or any(secret in file.content for secret in secrets):
        raise ConfigError(f"{file.name}: holds an access token; take it out before anything is sent")
    places = {str(run.resolve().parent), str(Path.home())} - {"/"}
    for place in sorted(places):
        if place.encode() + b"/" in file.content:
            raise ConfigError(f"{file.name}: names a folder of this machine ({place}); take it out first")


def send(
    files: list[File],
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    replaces: str | None = None,
) -> str:
    """Send files to a model repository as one commit.

    Args:
        files: The files.
        repo: The repository as ORG/NAME; it is created if it is missing.
        private: Whether a new repository is private.
        revision: A branch, created if it is missing; None takes the main one.
        replaces: Folder in the repository whose other files are deleted; None deletes nothing.

    Returns:
        The address of the commit, hf://ORG/NAME@COMMIT.

    Raises:
        ConfigError: `repo` is no such name, or HF_TOKEN is not set.
        BackendError: The Hub refused, or nobody answered.
    """
    check_name(repo)
    hub = _client()
    token = from_environment("HF_TOKEN")
    if not token:
        raise ConfigError("push needs an access token that may write: set HF_TOKEN in the environment")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    steps = [
        hub.CommitOperationAdd(
            file.name, file.content if isinstance(file.content, bytes) else str(file.content)
        )
        for file in files
    ]
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        if replaces is not None:
            sent = {file.name for file in files}
            names = api.list_repo_files(repo, revision=revision)
            old = [name for name in names if name.startswith(replaces) and name not in sent]
            steps += [hub.CommitOperationDelete(name) for name in old]
        done = api.create_commit(repo, steps, commit_message="Weights and card", revision=revision)
    except (hub.errors.HfHubHTTPError, OSError, _http_error()) as error:
        raise BackendError(f"{repo}: the Hub refused: {without_keys(str(error))}") from error
    return f"{HUB}{repo}@{done.oid}"


def check_name(repo: str) -> None:
    """Raise `ConfigError` unless `repo` is ORG/NAME."""
    if not _NAME.match(repo):
        raise ConfigError(f"--to {repo!r}: write ORG/NAME")


def with_local_warm_start(config: TrainConfig) -> TrainConfig:
    """Return the configuration with a local warm start; an adapter on the Hub is downloaded.

    Raises:
        ConfigError: The address is not written as hf://ORG/NAME or hf://ORG/NAME@REVISION.
        BackendError: The adapter cannot be downloaded.
    """
    warm = config.adapter.warm_start
    if warm is None or not warm.startswith(HUB):
        return config
    adapter = config.adapter.model_copy(update={"warm_start": str(fetch(warm))})
    return config.model_copy(update={"adapter": adapter})


def fetch(address: str) -> Path:
    """Download the adapter at hf://ORG/NAME[@REVISION] and return its folder.

    Raises:
        ConfigError: The address is not written like that, or it holds no adapter.
        BackendError: The adapter cannot be downloaded.
    """
    return adapters.folder(str(download(address, _FETCHED)))


def download(address: str, patterns: Iterable[str]) -> Path:
    """Download the files of hf://ORG/NAME[@REVISION] whose names match a pattern, and return their folder.

    Raises as `fetch` does."""
    repo, _, revision = address.removeprefix(HUB).partition("@")
    if not _NAME.match(repo):
        raise ConfigError(f"{address}: write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    hub = _client()
    try:
        folder = hub.snapshot_download(
            repo,
            revision=revision or None,
            allow_patterns=list(patterns),
            endpoint=os.environ.get("HF_ENDPOINT"),
            token=from_environment("HF_TOKEN") or False,
        )
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, _http_error()) as error:
        raise BackendError(f"{address}: cannot be downloaded: {without_keys(str(error))}") from error
    return Path(folder)


def _client() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise missing_package("the Hub", "huggingface_hub", "train") from error
    return huggingface_hub


def _http_error() -> type[Exception]:
    """Return the error that the Hub's client raises if nobody answers."""
    import httpx

    return httpx.HTTPError
