"""Which engine answers, as commands are told: a model with an adapter, a server's address, or any backend
written out as in an evaluation's YAML.

Promises: names are checked before anything is loaded; a key is named by its environment variable and never
passed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, SerializeAsAny

from dfkdata.common.config import C, Config, apply_override, bind, parse_yaml
from dfkdata.common.errors import ConfigError
from dfkdata.common.json_files import read_json, write_json
from dfkeval.runs import config as configs
from dfkeval.types import Sampling

#: What is added to an output's name for the record of how it was made.
RECORD = ".run.json"


class BackendChoice(Config):
    """backend: as in an evaluation's configuration. sampling: None takes the schema's default."""

    backend: Annotated[SerializeAsAny[Config], BeforeValidator(configs.backend_of)]
    sampling: Sampling | None = None


def configured(
    model: str | None,
    adapter: Path | None = None,
    *,
    urls: Sequence[str] = (),
    key: str | None = None,
    backend: str | None = None,
) -> Config:
    """The backend's configuration out of one of three: `backend` (YAML, or the path of a YAML file), the
    `urls` of servers with `model` as its name there, or a local `model`. Raises `ConfigError`."""
    if backend is not None:
        if adapter is not None or urls:
            raise ConfigError("--backend says everything; leave --adapter and --url out")
        given, root = _written(backend)
        return _bound(({"model": model} if model is not None else {}) | given, root)
    if model is None:
        raise ConfigError("say which model answers: --model NAME, or --backend '{kind: …}'")
    if urls:
        if adapter is not None:
            raise ConfigError("--adapter: a server loads its own adapters; start the server with this one")
        return _bound({"kind": "openai", "base_urls": list(urls), "model": model, "key": key}, Path.cwd())
    if key is not None:
        raise ConfigError("--key is for servers; give --url too")
    return _bound({"kind": "transformers", "model": model, "adapter": adapter}, Path.cwd())


def _written(backend: str) -> tuple[dict[str, Any], Path]:
    """(the mapping, where its paths start) of `--backend`."""
    path, root = Path(backend), Path.cwd()
    text = backend
    if not backend.lstrip().startswith("{"):
        try:
            text, root = path.read_text(encoding="utf-8"), path.resolve().parent
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--backend {backend!r}: no readable file and no mapping {{…}} ({error})"
            ) from error
    found = parse_yaml(text, "--backend")
    found = found.get("backend", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise ConfigError("--backend: write a mapping, for example '{kind: scripted, completions: a.jsonl}'")
    return found, root


def _bound(given: dict[str, Any], root: Path) -> Config:
    found = bind({"backend": given}, BackendChoice, "command line").backend
    return found.model_copy(update=configs.paths_of(found, root))


def sampling_of(base: Sampling, changes: Sequence[str]) -> Sampling:
    """`base` with changes such as "max_new_tokens=64". Raises `ConfigError` for an unknown name."""
    return changed(base, changes, "--set")


def changed(base: C, changes: Sequence[str], option: str) -> C:
    """`base` with changes such as "name=3", given by `option`. Raises `ConfigError` for an unknown name."""
    data: dict[str, Any] = {}
    for change in changes:
        apply_override(data, change)
    return bind(base.model_dump() | data, type(base), option)


def begin(out: Path, now: dict[str, Any], begun: bool) -> None:
    """Note beside `out`, a file or folder, how it is made. begun: it holds results already. Raises
    `ConfigError` where those were made in another way."""
    path, now = out.with_name(out.name + RECORD), msgspec.json.decode(msgspec.json.encode(now))
    before = read_json(path) if begun and path.exists() else now
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise ConfigError(
            f"{out}: was begun with another {', '.join(changed)}; give another --out, or remove it"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, now)
