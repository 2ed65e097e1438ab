"""Turn what libraries raise about the files of a model into one message of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dfkdata.common.errors import BackendError, DfkError

_LONGEST = 400

_REASONS = {
    "trust_remote_code": "it wants to run code of its own, which dfk never does; take a model that transformers knows",
    "Weights only load failed": "it holds pickled objects, which could run code when they are read; take one that was "
    "saved as safetensors",
}
"""Part of a library's message -> what it means here."""


@contextmanager
def foreign_files(what: str, kind: type[DfkError] = BackendError) -> Iterator[None]:
    """Raise one short error for whatever a library raises inside the `with` block, which calls nothing of ours.

    Args:
        what: What the files hold, to begin the message: "model 'tiny' cannot be loaded".
        kind: Class of the error.

    Raises:
        DfkError: Of class `kind`, in one line; a `DfkError` passes as it is.

    Example:
        >>> from dfkeval.models.loading import foreign_files
        >>> with foreign_files("model 'x' cannot be loaded"):
        ...     {}["vocab"]
        Traceback (most recent call last):
        dfkdata.common.errors.BackendError: model 'x' cannot be loaded: KeyError: 'vocab'
    """
    try:
        yield
    except DfkError:
        raise
    except Exception as error:  # a broken file makes libraries stumble anywhere (tokenizers: Exception)
        raise kind(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    for part, meaning in _REASONS.items():
        if part in text:
            return meaning
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    named = isinstance(error, OSError | ValueError | RuntimeError) and text
    return text if named else f"{type(error).__name__}: {text}"
