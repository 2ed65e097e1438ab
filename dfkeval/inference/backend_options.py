"""Build a backend configuration from command-line options: a local model, a server URL, or YAML.

Guarantees:
- Names are checked before anything is loaded.
- A key is named by its environment variable; its text is never an option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from dfkdata.common.config import C, Config, apply_override, bind, parse_yaml
from dfkdata.common.console import say
from dfkdata.common.errors import ConfigError
from dfkeval.backends import Backend
from dfkeval.models import adapters
from dfkeval.runs import config as run_config
from dfkeval.types import Sampling


class BackendChoice(Config):
    """A backend as in an evaluation's configuration.

    Args:
        backend: The configuration of a member of `dfkeval.backends`.
        sampling: How text is drawn; None takes the schema's default.
    """

    backend: Annotated[SerializeAsAny[Config], BeforeValidator(run_config.backend_of)]
    sampling: Sampling | None = None


def configured(
    model: str | None,
    adapter: Path | None = None,
    *,
    urls: Sequence[str] = (),
    key: str | None = None,
    backend: str | None = None,
) -> Config:
    """Return the configuration of the backend that answers.

    Args:
        model: A local model; with `urls` its name on the servers.
        adapter: Folder of a LoRA adapter for the local model.
        urls: Addresses of OpenAI-compatible servers.
        key: Name of the environment variable with the servers' key.
        backend: Any backend instead, as YAML or as the path of a YAML file.

    Raises:
        ConfigError: The options do not go together, or the YAML is not a backend.
    """
    if backend is not None:
        if adapter is not None or urls:
            raise ConfigError("--backend says everything; leave --adapter and --url out")
        options, root = _from_yaml(backend)
        return _bound(({"model": model} if model is not None else {}) | options, root)
    if model is None:
        raise ConfigError("say which model answers: --model NAME, or --backend '{kind: …}'")
    if urls:
        if adapter is not None:
            raise ConfigError("--adapter: a server loads its own adapters; start the server with this one")
        return _bound({"kind": "openai", "base_urls": list(urls), "model": model, "key": key}, Path.cwd())
    if key is not None:
        raise ConfigError("--key is for servers; give --url too")
    folder = None if adapter is None else adapters.folder(adapter)
    return _bound({"kind": "transformers", "model": model, "adapter": folder}, Path.cwd())


def adapter_verdict(backend: Backend) -> str | None:
    """Return what a backend's probe says of its adapter; None if it was not probed."""
    told = str(backend.info.get("adapter_effect") or backend.info.get("adapter") or "")
    return told if "probed rows" in told else None


def warn_of_adapter(backend: Backend) -> None:
    """Write a line to stderr if the probe found that the adapter does not do what it should."""
    told = adapter_verdict(backend)
    if told is not None and not told.startswith("the adapter changes"):
        say(f"dfkeval: {told}; see docs/evaluation.md, Adapters")


def _from_yaml(backend: str) -> tuple[dict[str, Any], Path]:
    """Return (the mapping, the folder where its paths start) of `--backend`."""
    path, root = Path(backend), Path.cwd()
    text = backend
    if not backend.lstrip().startswith("{"):
        try:
            text, root = path.read_text(encoding="utf-8"), path.resolve().parent
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--backend {backend!r}: neither a readable file nor a mapping {{…}} ({error})"
            ) from error
    options = parse_yaml(text, "--backend")
    options = options.get("backend", options) if isinstance(options, dict) else options
    if not isinstance(options, dict):
        raise ConfigError("--backend: write a mapping, for example '{kind: scripted, completions: a.jsonl}'")
    return options, root


def _bound(options: dict[str, Any], root: Path) -> Config:
    backend = bind({"backend": options}, BackendChoice, "command line").backend
    return backend.model_copy(update=run_config.paths_of(backend, root))


def changed(base: C, changes: Sequence[str], option: str) -> C:
    """Return a configuration with some of its keys changed.

    Args:
        base: The configuration.
        changes: Changes such as "max_new_tokens=64".
        option: Name of the option that gave them, for messages.

    Raises:
        ConfigError: There is no such key, or the value does not fit.
    """
    data: dict[str, Any] = {}
    for change in changes:
        apply_override(data, change)
    return bind(base.model_dump() | data, type(base), option)
