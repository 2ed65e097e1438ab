"""Run functions that call themselves as deeply as their data nest, without Python's limit on calls."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
#: A function that yields its calls of itself, is sent what they return, and returns its own result.
Steps = Generator["Steps[Any]", Any, Result]


def run(steps: Steps[Result]) -> Result:
    """Return what `steps` returns.

    Args:
        steps: a call of a generator function that writes `result = yield itself(...)` for each inner call.

    Returns:
        The result of the outermost call.

    Example:
        >>> from dfkdata.common.recursion import Steps, run
        >>> def depth(value: list) -> Steps[int]:
        ...     inner = 0
        ...     for item in value:
        ...         inner = max(inner, (yield depth(item)))
        ...     return inner + 1
        >>> run(depth([[], [[]]]))
        3"""
    waiting: list[Steps[Any]] = [steps]
    result: Any = None
    while waiting:
        try:
            waiting.append(waiting[-1].send(result))
            result = None
        except StopIteration as done:
            waiting.pop()
            result = done.value
    return result  # type: ignore[no-any-return]
