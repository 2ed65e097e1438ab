"""Read YAML into frozen configurations.

Unknown keys raise an error with a suggestion, and all errors come at once. The YAML library is loaded when
there is YAML to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dfkdata.common import media_roots, plugins
from dfkdata.common.errors import ConfigError
from dfkdata.common.plugins import suggestion


class Config(BaseModel):
    """Base of everything that users write in YAML: it is immutable and takes no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


NonEmpty = Annotated[str, Field(min_length=1)]
"""A name or path; an empty one is a mistake, and would mean that nothing was named."""

C = TypeVar("C", bound=Config)


MOST_FAULTS = 50
"""Faults of one configuration that are told one by one."""


def load_config(path: str | Path, model: type[C], overrides: Sequence[str] = ()) -> C:
    """Return the configuration in a YAML file.

    Args:
        path: The file.
        model: The configuration's class.
        overrides: Changes such as "stages.0.learning_rate=1e-4" that are applied first.

    Raises:
        ConfigError: Lists every fault with its place and, for an unknown key, the nearest known one.
    """
    data = read_mapping(path)
    for override in overrides:
        apply_override(data, override)
    config = bind(data, model, str(path))
    _trust(config, Path(path).resolve().parent)
    return config


def _trust(config: Config, root: Path) -> None:
    """Let files name what the user lists under `plugins:` and `media_roots:`, in every section."""
    plugins.trust(getattr(config, "plugins", ()))
    media_roots.allow(root / folder for folder in getattr(config, "media_roots", ()))
    for name in type(config).model_fields:
        if isinstance(section := getattr(config, name), Config):
            _trust(section, root)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file as plain values. Raises `ConfigError` for anything else."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    data = parse_yaml(text, str(path))
    if data is None:
        raise ConfigError(f"{path}: the file is empty; a configuration is a mapping of keys")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys, this is {type(data).__name__}")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain values in a YAML text. Raises `ConfigError` that names `where`."""
    from dfkdata.common import yaml_loader

    return yaml_loader.parse(text, where)


def bind(data: dict[str, Any], model: type[C], where: str = "config") -> C:
    """Return `data` as a `model`. Raises `ConfigError` with all faults at once; each begins with `where`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        holding = {tuple(fault["loc"][:length]) for fault in faults for length in range(len(fault["loc"]))}
        own = [
            fault for fault in faults if fault["type"] != "too_short" or tuple(fault["loc"]) not in holding
        ]  # a list is also called too short if its entries have faults of their own
        lines = [
            _fault(model, fault["loc"], fault["type"], fault["msg"].removeprefix("Value error, "))
            for fault in own[:MOST_FAULTS]
        ]
        if len(own) > MOST_FAULTS:
            lines.append(f"and {len(own) - MOST_FAULTS} more faults")
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _fault(model: type[BaseModel], loc: tuple[int | str, ...], kind: str, message: str) -> str:
    place = ".".join(str(step) for step in loc)
    if kind != "extra_forbidden":
        return f"{place}: {message}" if place else message
    known = _known_keys(model, loc[:-1])
    key = str(loc[-1])
    return f"{place}: unknown key{suggestion(key, known)} (known: {', '.join(known)})"


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the models that `loc` points into; walks lists, unions and nested models."""
    current: list[type[BaseModel]] = [model]
    for step in loc:
        below = [
            inner
            for candidate in current
            if isinstance(step, str) and step in candidate.model_fields
            for inner in _models(candidate.model_fields[step].annotation)
        ]
        current = below or current
    return sorted(
        {field.alias or name for candidate in current for name, field in candidate.model_fields.items()}
    )


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def apply_override(data: dict[str, Any], override: str) -> None:
    """Apply "a.b.0.c=value" to `data` in place; the value is YAML.

    Raises:
        ConfigError: The override is not written like that, or its place does not exist.
    """
    from dfkdata.common.console import key_value

    place, value = key_value(override, "--set", "key=value, for example stages.0.learning_rate=1e-4")
    *path, last = place.split(".")
    target: Any = data
    for step in path:
        target = _step(target, step, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = parse_yaml(value, f"--set {override}")
    else:
        target[last] = parse_yaml(value, f"--set {override}")


def _step(target: Any, step: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, step, override)]
    if isinstance(target, dict):
        return target.setdefault(step, {})
    raise ConfigError(f"--set {override!r}: {step!r} lies below a plain value")


def _index(target: list[Any], step: str, override: str) -> int:
    if step.isdigit() and int(step) < len(target):
        return int(step)
    raise ConfigError(f"--set {override!r}: {step!r} is not an index of a list of {len(target)}")
