"""What decides an answer: one identity that cache, resume and comparison share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

#: Keys of `Backend.info` that are recorded and decide no answer.
NOT_DECIDING: Final = frozenset(
    {
        "adapter", "adapter_effect", "batch_tokens_after_out_of_memory", "completions", "data_parallel",
        "servers", "shapes_sha256", "source", "static_because", "tensor_parallel",
    }
)  # fmt: skip


#: An answer is used again only if all of these are equal.
_CACHE: Final = (
    "weights_sha256", "revision", "adapter_sha256", "template_sha256", "dtype", "attention", "kernels",
    "image_backend", "torch", "transformers",
)  # fmt: skip
#: The same of a server, which says nothing about its weights.
_SERVER_CACHE: Final = ("model", "revision", "server")
#: A file of predictions goes on only if all of these are equal.
_RESUME: Final = (
    "kind", "model", "revision", "weights_sha256", "adapter_sha256", "template_sha256", "pixels", "dtype",
)  # fmt: skip
#: Rows of two runs are compared only if all of these are equal.
_COMPARE: Final = ("template_sha256", "pixels")


@dataclass(frozen=True, kw_only=True)
class AnswerIdentity:
    """Everything that decides an answer besides the question itself.

    settings: the keys of the configuration that decide what is asked and answered. All other fields are facts
    of `Backend.info`; None if the backend does not know them. A new fact belongs here or to `NOT_DECIDING`.

    How it works: the cache wants every fact that may move an answer, down to the
    kernels; a run may go on with other kernels, but not with other weights or another precision; two runs are
    comparable if both were shown the same, whatever answered. Names of models and sizes of images are no part
    of a cached answer, since the hashes of weights and of resized images stand for them."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str | None = None
    model: str | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    adapter_sha256: str | None = None
    template_sha256: str | None = None
    pixels: Any = None
    dtype: str | None = None
    attention: str | None = None
    kernels: Any = None
    image_backend: str | None = None
    batching: str | None = None
    torch: str | None = None
    transformers: str | None = None
    device: str | None = None
    vllm: str | None = None
    engine_args: Any = None
    server: str | None = None

    @classmethod
    def of(
        cls, info: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> AnswerIdentity:
        """Return the identity in the facts of a backend and the settings of a configuration."""
        names = {each.name for each in fields(cls)} - {"settings"}
        facts = {name: value for name, value in (info or {}).items() if name in names}
        return cls(settings=settings or {}, **facts)

    def for_cache(self) -> dict[str, Any] | None:
        """Return what a cached answer depends on; None if neither a hash nor a revision says what answers."""
        if not self.weights_sha256 and not self.revision:
            return None
        if self.server is not None:
            return self._facts(_SERVER_CACHE)
        facts = self._facts(_CACHE) | {"device": str(self.device).partition(":")[0]}
        if self.batching is not None:  # joined products round otherwise in 16 bits
            facts["batching"] = self.batching
        options = {"engine_args": self.engine_args} if self.engine_args else {}
        return facts if self.vllm is None else facts | {"vllm": self.vllm} | options

    def for_resume(self) -> dict[str, Any]:
        """Return the known facts that must not change while predictions or labels are written to one file."""
        return {name: value for name, value in self._facts(_RESUME).items() if value is not None}

    def changed_settings(self, other: AnswerIdentity) -> list[str]:
        """Return the keys of the configuration in which the two differ, sorted."""
        keys = self.settings.keys() | other.settings.keys()
        return sorted(key for key in keys if self.settings.get(key) != other.settings.get(key))

    def shown_differently(self, other: AnswerIdentity) -> str | None:
        """Return the first fact by which the two show a question differently; unknown facts count as
        equal."""
        for name in _COMPARE:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                return name
        return None

    def _facts(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
