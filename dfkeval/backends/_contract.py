"""The protocols that an engine implements; `dfkeval.backends` exports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dfkeval.models.identity import AnswerIdentity
from dfkeval.types import Completion, GoldAnswer, Likelihood, Request, Sampling


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do besides answering requests one batch at a time.

    Args:
        constrained: Keeps answers to the `constraint` of a request.
        likelihoods: Is a `Scorer` as well.
        remote: A server answers; it obeys `Request.force_tool` by its own `tool_choice`.
        parallel: `generate` may be called from several threads at once.
        cacheable: Is `Cacheable` as well.
        videos: Reads `Request.videos` if the model's processor does (`video_fault(config)` of the member
            says why it does not).
        scales_images: Obeys `Request.max_image_side`.
        limits_requests: Obeys `Request.deadline` and `Request.max_prompt_tokens`.

    Example:
        >>> from dfkeval.backends import Capabilities
        >>> Capabilities(remote=True, parallel=True).constrained
        False
    """

    constrained: bool = False
    likelihoods: bool = False
    remote: bool = False
    parallel: bool = False
    cacheable: bool = False
    videos: bool = False
    scales_images: bool = False
    limits_requests: bool = False


class Backend(Protocol):
    """One engine around something that is loaded.

    Attributes:
        capabilities: What it can do besides answering.
        info: Facts for the record of a run (versions, hashes, dtype); JSON types only.

    Example:
        >>> from dfkeval import Predictor
        >>> from dfkeval.backends import Capabilities, Completion
        >>> class Echo:
        ...     capabilities = Capabilities()
        ...     info = {"kind": "echo"}
        ...     def generate(self, requests, sampling):
        ...         for request in requests:
        ...             yield Completion(id=request.id, text=request.messages[-1]["content"][0]["text"])
        ...     def close(self):
        ...         pass
        >>> Predictor(schema="answer", backend=Echo())(question="Apa?")
        {'answer': 'Apa?'}
    """

    capabilities: Capabilities

    @property
    def info(self) -> dict[str, Any]:
        """Facts for the record of a run (versions, hashes, dtype); JSON types only."""

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield one completion for each request, in any order, as they come.

        Args:
            requests: What to ask; may be an iterator that is read as the engine has room.
            sampling: How text is drawn.

        Yields:
            Completions. If one request fails, its completion has finish_reason "error" and the reason.

        Raises:
            BackendError: The engine itself fails.
        """

    def close(self) -> None:
        """Free what was loaded."""


@runtime_checkable
class Scorer(Protocol):
    """A backend that can also say how likely an answer is.

    Example:
        >>> from dfkeval.backends import Scorer
        >>> from dfkeval.types import Likelihood
        >>> class Even:
        ...     def likelihoods(self, gold_answers, sampling):
        ...         for gold_answer in gold_answers:
        ...             yield Likelihood(id=gold_answer.request.id, nll=0.7, tokens=1)
        >>> isinstance(Even(), Scorer)
        True
    """

    def likelihoods(self, gold_answers: Iterable[GoldAnswer], sampling: Sampling) -> Iterator[Likelihood]:
        """Yield one likelihood for each gold answer, in any order; what cannot be scored has an error."""


@runtime_checkable
class Streaming(Protocol):
    """A backend that tells what it has written so far of an answer, if it is asked for one at a time.

    Attributes:
        listen: Gets the whole text so far, each time that it has grown, perhaps in another thread; what it raises
            ends that answer. None to tell nobody.
    """

    listen: Callable[[str], None] | None


class Cacheable(Backend, Protocol):
    """A backend whose answers can be told apart by content, so that they may be used again.

    Attributes:
        identity: What answers, in hashes and versions; None if nothing identifies it.
    """

    identity: AnswerIdentity | None

    def fingerprint(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        """Return what is shown for one request: the rendered prompt and the images after resizing, or hashes.

        Raises:
            DataError: An image cannot be read.
        """
