"""Download data sets of the Hub into a local cache, through the Hub's plain HTTP interface.

How it works. The endpoint is HF_ENDPOINT (default https://huggingface.co); the cache is the folder `dfk`
below HF_HOME or ~/.cache/huggingface. A token in HF_TOKEN is sent to the endpoint alone and never stored."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import quote, urlsplit

import msgspec

from dfkdata.common.config import parse_yaml
from dfkdata.common.credentials import address, from_environment
from dfkdata.common.errors import ConfigError, DataError
from dfkdata.common.json_files import write_bytes
from dfkdata.rows.split_names import split_word

SCHEME = "hf://datasets/"


class Place(NamedTuple):
    """A data set on the Hub: "ORG/NAME", its revision, and the folder or file inside it ("" for all)."""

    repo: str
    revision: str
    inside: str


def parse(address: str) -> Place:
    """Return the place that `hf://datasets/ORG/NAME[@REV][/PATH]` names."""
    parts = address.removeprefix(SCHEME).split("/")
    if len(parts) < 2 or not all(parts[:2]):
        raise ConfigError(f"{address}: write hf://datasets/ORG/NAME or hf://datasets/ORG/NAME@REVISION")
    name, _, revision = parts[1].partition("@")
    return Place(f"{parts[0]}/{name}", revision or "main", "/".join(parts[2:]))


def fetch(
    address: str, config: str | None, split: str | None, suffixes: tuple[str, ...]
) -> tuple[Path, dict[Path, str]]:
    """Return the cache folder and the data files of a split, after downloading those that are missing.

    Args:
        address: hf://datasets/ORG/NAME[@REV][/PATH].
        config: The configuration that the data set's README declares; None for the default.
        split: The split; None for all.
        suffixes: The ends of names of data files.

    Returns:
        The folder, and file -> the split that the data set's README, or else the file's name, puts it in.

    Raises:
        ConfigError: If the address is of another form, or no file fits config and split.
        DataError: If the Hub does not answer.
    """
    place = parse(address)
    commit, names = _listing(place)
    folder = _cache() / place.repo.replace("/", "--") / commit
    chosen = _chosen(place, names, config, split, folder, commit, suffixes)
    others = [name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".gif"))]
    files = {_download(place, commit, name, folder): own for name, own in chosen.items()}
    for name in others:
        _download(place, commit, name, folder)
    return folder, files


class _File(msgspec.Struct):
    rfilename: str


class _Info(msgspec.Struct):
    """The part of the Hub's answer about a data set that is read."""

    sha: str
    siblings: list[_File] = []


def _listing(place: Place) -> tuple[str, list[str]]:
    """Return the commit of a revision and the names of its files, less names that lead out of a folder."""
    what = f"api/datasets/{place.repo}/revision/{quote(place.revision, safe='')}"
    try:
        info = msgspec.json.decode(_get(what), type=_Info)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{what}: the hub's answer cannot be read ({error}); check that HF_ENDPOINT is a hub"
        ) from error
    if not re.fullmatch(r"[0-9A-Za-z]+", info.sha):
        raise DataError(
            f"{what}: the hub's commit {info.sha!r} is not a hash; check that HF_ENDPOINT is a hub"
        )
    return info.sha, [file.rfilename for file in info.siblings if _stays_inside(file.rfilename)]


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name)


def _chosen(
    place: Place,
    names: list[str],
    config: str | None,
    split: str | None,
    folder: Path,
    commit: str,
    suffixes: tuple[str, ...],
) -> dict[str, str]:
    """Return the names of the data files that are meant, each with its split; empty if nothing names one."""
    inside = place.inside.rstrip("/")
    data = sorted(
        name
        for name in names
        if name.lower().endswith(suffixes) and (not inside or f"{name}/".startswith(f"{inside}/"))
    )
    declared = _declared(place, names, folder, commit)
    if config is not None or (declared and not place.inside):
        found = _matching(_config(place, declared or [], config), data, split)
    elif split is not None:
        named = (
            name for name in data if split in Path(name).name.replace("-", ".").replace("_", ".").split(".")
        )
        found = dict.fromkeys(named, split)
    else:
        found = {name: split_word(name) for name in data}
    if not found:
        raise ConfigError(f"{place.repo} has no data file for config {config!r} and split {split!r}")
    return found


class _Declared(NamedTuple):
    """A configuration in a README's head; `default` says that it counts if the user names none."""

    name: str
    data_files: Any
    default: bool


def _config(place: Place, declared: list[_Declared], name: str | None) -> _Declared:
    """Return the configuration of that name; without a name the only one, or the default of `datasets`."""
    known = ", ".join(config.name for config in declared) or "none"
    if name is not None:
        named = [config for config in declared if config.name == name]
        if not named:
            raise ConfigError(f"{place.repo} has no config {name!r}; it declares {known}")
        return named[0]
    defaults = [config for config in declared if config.default] or declared
    if len(defaults) > 1:
        way = "name one: --hub-config, hub_config= in Python, or a path behind the data set's name"
        raise ConfigError(f"{place.repo} has {len(declared)} configs and no default ({known}); {way}")
    return defaults[0]


def _declared(place: Place, names: list[str], folder: Path, commit: str) -> list[_Declared]:
    """Return the configurations in the head of the data set's README, in order."""
    if "README.md" not in names:
        return []
    text = _download(place, commit, "README.md", folder).read_text(encoding="utf-8-sig", errors="replace")
    if not text.startswith("---"):
        return []
    head = parse_yaml(text.split("---", 2)[1], f"README.md of {place.repo}")
    configs = head.get("configs") if isinstance(head, dict) else None
    entries = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    return [_one_declared(entry) for entry in entries]


def _one_declared(entry: dict[str, Any]) -> _Declared:
    name = str(entry.get("config_name", "default"))
    return _Declared(name, entry.get("data_files"), name == "default" or entry.get("default") is True)


def _matching(config: _Declared, names: list[str], split: str | None) -> dict[str, str]:
    """Return the names that a configuration's `data_files` mean, each with its split.

    An unknown split raises `ConfigError`."""
    splits = _splits(config.data_files)
    if split is not None and splits and split not in splits:
        raise ConfigError(f"config {config.name!r} has no split {split!r}; it has {', '.join(splits)}")
    chosen = splits if split is None else {split: splits.get(split, [])}
    known = [(own, _pattern(pattern)) for own, patterns in chosen.items() for pattern in patterns]
    found = {name: next((own for own, pattern in known if pattern.fullmatch(name)), None) for name in names}
    return {name: own for name, own in found.items() if own is not None}


def _splits(files: Any) -> dict[str, list[str]]:
    """Return the patterns of each split in `data_files`: a pattern, a list of them, or splits with patterns.

    A pattern without a split belongs to `train`, as in `datasets`."""
    splits: dict[str, list[str]] = {}
    for entry in files if isinstance(files, list) else [files]:
        declared = {"split": "train", "path": entry} if isinstance(entry, str) else entry
        if isinstance(declared, dict):
            paths = declared.get("path")
            patterns = splits.setdefault(str(declared.get("split", "train")), [])
            patterns += [one for one in (paths if isinstance(paths, list) else [paths]) if _is_pattern(one)]
    return splits


def _is_pattern(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


_SIGNS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]")
_MEANS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern over whole names, from the data set's top: * stays in a folder, ** does not."""
    at, regex = 0, ""
    for sign in _SIGNS.finditer(pattern := pattern.removeprefix("./")):
        regex += re.escape(pattern[at : sign.start()])
        regex += _MEANS.get(sign.group()) or sign.group().replace("[!", "[^", 1)
        at = sign.end()
    try:
        return re.compile(regex + re.escape(pattern[at:]))
    except re.error as error:
        reason = f"data_files: {pattern!r} is not a pattern ({error})"
        raise ConfigError(f"{reason}; name the files by a path behind the data set's name") from error


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return Path(home) / "dfk"


def _download(place: Place, commit: str, name: str, folder: Path) -> Path:
    path = folder / name
    if not path.exists():
        data = _get(f"datasets/{place.repo}/resolve/{quote(commit, safe='')}/{quote(name)}")
        write_bytes(path, data, shared=True)
    return path


def _get(what: str) -> bytes:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise ConfigError(f"HF_ENDPOINT={address(endpoint)!r} is not a web address; write https://...")
    request = urllib.request.Request(f"{endpoint}/{what}")
    if token := from_environment("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # nosec B310: the scheme is checked above
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        hint = "; a private data set needs HF_TOKEN" if error.code in (401, 403, 404) else ""
        raise DataError(f"{address(endpoint)}/{what}: the hub answers {error.code}{hint}") from error
    except (OSError, HTTPException) as error:  # a name without address, a closed door, an answer cut off
        raise DataError(f"{address(endpoint)}/{what}: the hub does not answer ({error})") from error
