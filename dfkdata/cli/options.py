"""Command-line options made from the fields of `ConvertOptions`: names, types, defaults and help texts."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from enum import Enum, StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from dfkdata.common.console import key_value
from dfkdata.conversion.options import ConvertOptions

Input = Annotated[str, typer.Argument(help="File, folder, pattern, zip, tar or hf://datasets/ORG/NAME@REV.")]

Redact = Annotated[
    bool, typer.Option("--redact", help="Mask e-mail, links, handles and phone numbers, and blur pictures.")
]

_FLAGS = {
    "format": ("--from",),
    "schema_name": ("--schema",),
    "rules": ("--rule",),
    "options": ("--option", "-o"),
}
"""Fields whose option is not called as the field."""

_TYPES: dict[str, Any] = {
    "labels": str | None,
    "images": Path | None,
    "max_rejects": str,
    "validation_file": str | None,
    "test_file": str | None,
    "rules": list[str] | None,
    "options": list[str] | None,
}
"""Fields that are written in another type on the command line."""

_PER_ROW = Parameter(
    "images_per_row",
    Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None, typer.Option("--images-per-row", help="all or first, if rows list several images.")
    ],
)


def takes_options(
    names: Iterable[str], *, required: Container[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each of these fields of `ConvertOptions`.

    Args:
        names: Names of the fields.
        required: Fields that must be given although they have a default.

    Returns:
        A decorator. The command's parameter `options` gets the keywords for `convert`; its other parameters
        stay as they are.
    """
    fields = [_parameter(name, required=name in required) for name in names]
    if any(field.name == "options" for field in fields):
        fields.append(_PER_ROW)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=Parameter.KEYWORD_ONLY)
            for parameter in signature(command, eval_str=True).parameters.values()
            if parameter.name != "options"
        ]

        def run(**values: Any) -> None:
            own_values = {parameter.name: values.pop(parameter.name) for parameter in own}
            command(**own_values, options=_keywords(values))

        run.__doc__ = command.__doc__
        parameters = [*own, *fields]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        setattr(run, "__signature__", Signature(parameters))  # noqa: B010
        return run

    return decorate


def _parameter(name: str, *, required: bool) -> Parameter:
    field = ConvertOptions.model_fields[name]
    flags = _FLAGS.get(name, ("--" + name.replace("_", "-"),))
    annotation: Any = _TYPES.get(name, field.annotation)
    if get_origin(annotation) is Literal:  # older releases of typer know choices as enums only
        choices: Any = StrEnum
        annotation = choices(name, {value: value for value in get_args(annotation)})
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if required or field.is_required() else field.default,
        annotation=Annotated[annotation, typer.Option(*flags, help=field.description)],
    )


def _keywords(values: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords for `convert`: pairs as dicts, choices as text."""
    per_row = values.pop("images_per_row", None)
    keywords: dict[str, Any] = {}
    for name, value in values.items():
        key = ConvertOptions.model_fields[name].alias or name
        keywords[key] = value.value if isinstance(value, Enum) else value
    if "rules" in values:
        keywords["rules"] = _pairs(values["rules"], "--rule")
    if "options" in values:
        own = {} if per_row is None else {"images_per_row": per_row}
        keywords["options"] = _pairs(values["options"], "--option") | own
    return keywords


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    return dict(key_value(text, option) for text in texts or ())
