"""Read YAML into frozen configurations.

Unknown keys raise an error with a suggestion, and all errors come at once. The YAML library is loaded when
there is YAML to read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args

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
P = ParamSpec("P")
T = TypeVar("T")

_LISTS = ("list_type", "tuple_type", "set_type", "frozen_set_type")


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
    faults: list[str] = []
    for override in overrides:
        try:
            apply_override(data, override)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join([*faults, *_faults_of(data, model, str(path), overrides)]))
    config = bind(data, model, str(path), overrides)
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


def bind(data: dict[str, Any], model: type[C], where: str = "config", overrides: Sequence[str] = ()) -> C:
    """Return `data` as a `model`.

    Args:
        data: The values.
        model: The configuration's class.
        where: Begins every message, such as the name of the file.
        overrides: Changes that were applied to `data`, to name the one that emptied a place.

    Raises:
        ConfigError: Lists every fault.
    """
    try:
        return model.model_validate(data)
    except (ConfigError, ValidationError) as error:
        found = error if isinstance(error, ValidationError) else error.__cause__
        lines = (
            faults_of(found, model, overrides)
            if isinstance(found, ValidationError)
            else str(error).splitlines()
        )
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _faults_of(data: dict[str, Any], model: type[Config], where: str, overrides: Sequence[str]) -> list[str]:
    try:
        bind(data, model, where, overrides)
    except ConfigError as error:
        return str(error).splitlines()
    return []


class NestedFaults(ValueError):
    """Faults of a part that another class has bound; each line names its place from the top."""


def gathered(make: Callable[P, T]) -> Callable[P, T]:
    """Return a function for pydantic's validators whose `ConfigError` stands beside the faults of other keys.

    Args:
        make: Raises `ConfigError` with one fault a line.
    """

    @functools.wraps(make)
    def run(*args: P.args, **options: P.kwargs) -> T:
        try:
            return make(*args, **options)
        except ConfigError as error:
            raise NestedFaults(str(error)) from error

    return run


def raise_all(*checks: tuple[Any, ...]) -> None:
    """Call every check and raise one `ConfigError` with the messages of all that fail.

    Args:
        *checks: A function and its arguments; it raises `ConfigError`.
    """
    faults = []
    for check, *arguments in checks:
        try:
            check(*arguments)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))


def faults_of(error: ValidationError, model: type[BaseModel], overrides: Sequence[str] = ()) -> list[str]:
    """Return the faults that pydantic found, one a line; see `bind`."""
    faults = error.errors(include_url=False)
    holding = {tuple(fault["loc"][:length]) for fault in faults for length in range(len(fault["loc"]))}
    own = [
        fault for fault in faults if fault["type"] != "too_short" or tuple(fault["loc"]) not in holding
    ]  # a list is also called too short if its entries have faults of their own
    lines = [line for fault in own for line in _fault(model, fault, overrides)]
    more = [f"and {len(lines) - MOST_FAULTS} more faults"] if len(lines) > MOST_FAULTS else []
    return lines[:MOST_FAULTS] + more


def _fault(model: type[BaseModel], fault: Any, overrides: Sequence[str]) -> list[str]:
    """Return one fault as lines."""
    loc, kind, message = fault["loc"], fault["type"], fault["msg"].removeprefix("Value error, ")
    if isinstance(nested := fault.get("ctx", {}).get("error"), NestedFaults):
        return str(nested).splitlines()
    place = ".".join(str(step) for step in loc)
    if kind == "extra_forbidden":
        known = _known_keys(model, loc[:-1])
        near = suggestion(str(loc[-1]), known)
        return [f"{place}: unknown key{near} (known: {', '.join(known)})"]
    if kind in _LISTS and isinstance(fault["input"], str):
        message = f"a list is needed, and this is one text; write [{fault['input']}]"
    elif kind == "missing":
        message = "is missing"
    elif fault["input"] is None and (emptied := _emptied_by(place, overrides)):
        message = f"nothing is left here after the change {emptied}; leave it out, or give a whole value"
    return [f"{place}: {message}" if place else message]


def _emptied_by(place: str, overrides: Sequence[str]) -> str:
    """Return the change that set a place, or what holds it, to nothing; empty if there is none."""
    for override in overrides:
        key, _, value = override.partition("=")
        if (place == key or place.startswith(f"{key}.")) and value.strip() in ("", "null", "~"):
            return override
    return ""


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
    for at, step in enumerate(path):
        target = _step(target, step, override, ".".join(path[: at + 1]))
    parsed = parse_yaml(value, f"--set {override}")
    if isinstance(target, list):
        target[_index(target, last, override)] = parsed
    elif isinstance(target, dict):
        target[last] = parsed
    else:
        raise ConfigError(_below_a_value(override, last, ".".join(path)))


def _step(target: Any, step: str, override: str, place: str) -> Any:
    """Return what lies at a step; a section that is not there, or is written without keys, is begun."""
    if isinstance(target, list):
        at = _index(target, step, override)
        if target[at] is None:
            raise ConfigError(
                f"--set {override!r}: {place} is empty; an earlier change removed it: leave that one out, or give the "
                "whole section"
            )
        return target[at]
    if isinstance(target, dict):
        if target.get(step) is None:
            target[step] = {}
        return target[step]
    raise ConfigError(_below_a_value(override, step, place.rpartition(".")[0]))


def _below_a_value(override: str, step: str, place: str) -> str:
    return f"--set {override!r}: {step!r} lies below a plain value; {place} has no keys"


def _index(target: list[Any], step: str, override: str) -> int:
    if step.isdigit() and int(step) < len(target):
        return int(step)
    raise ConfigError(f"--set {override!r}: {step!r} is not an index of a list of {len(target)}")
