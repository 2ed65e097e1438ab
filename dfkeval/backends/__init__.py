"""FAMILY: engines that answer requests, one a file.

A member is a module with two names, and four more that are optional:

    Config         what users write under `backend:`: a subclass of `dfkdata.common.config.Config`, whose
                   `kind` is the name of the member
    start(config)  loads the engine and returns a `Backend`; raises `BackendError` or `ConfigError`
    CAPABILITIES   what the backend can do besides answering (`Capabilities`); without it, nothing
    video_fault(config)
                   says why the model does not read videos (a text), or None; asked only if the capabilities
                   say that it may
    check(config, sampling, constraint)
                   raises `ConfigError` for what the engine cannot do, before anything is loaded

The returned backend has `info`, `capabilities` (the same as the module's), `generate` and `close`. If its
capabilities say so it is a `Scorer` or `Cacheable` as well; one that shows answers while they are written is
`Streaming`. The engine's package is imported inside `start`, so that a configuration can be written and checked where
the engine is not installed. A complete member:

    from typing import Literal
    from dfkdata.common import config
    from dfkeval.backends import Capabilities, Completion

    class Config(config.Config):
        kind: Literal["echo"] = "echo"

    class Echo:
        capabilities = Capabilities()
        info = {"kind": "echo"}

        def generate(self, requests, sampling):
            for request in requests:
                yield Completion(id=request.id, text=request.id)

        def close(self):
            pass

    def start(config):
        return Echo()

Other rooms start and check a member by the functions of this package only."""

from __future__ import annotations

from dfkdata.common import plugins
from dfkdata.common.config import Config
from dfkdata.common.errors import ConfigError
from dfkdata.common.status_line import now
from dfkeval.backends._contract import Backend, Capabilities, Scorer
from dfkeval.backends._contract import Cacheable as Cacheable
from dfkeval.backends._contract import Streaming as Streaming
from dfkeval.backends._xgrammar import load_xgrammar as load_xgrammar
from dfkeval.types import Completion, Constraint, Request, Sampling

__all__ = ["Backend", "Capabilities", "Completion", "Request", "Sampling", "Scorer"]

FAMILY = "dfkeval.backends"
#: Names that every member defines.
REQUIRED = ("Config", "start")


def kind_of(config: Config) -> str:
    """Return the name of the member that a configuration belongs to; a module's path for one from
    elsewhere."""
    return str(getattr(config, "kind", type(config).__module__))


def start(config: Config) -> Backend:
    """Load the engine of a configuration.

    Args:
        config: The configuration of a member.

    Raises:
        ConfigError: There is no such member, or its configuration does not fit together.
        BackendError: The engine cannot be loaded.
    """
    now(f"loads {getattr(config, 'model', None) or kind_of(config)}")
    backend: Backend = plugins.load(FAMILY, kind_of(config)).start(config)
    now("asks")
    return backend


def capabilities_of(kind: str) -> Capabilities:
    """Return what a member can do, without loading its engine. Raises `ConfigError` for an unknown member."""
    capabilities: Capabilities = getattr(plugins.load(FAMILY, kind), "CAPABILITIES", Capabilities())
    return capabilities


def video_fault(config: Config) -> str | None:
    """Return why a member does not read videos; None if it does. Weights are not loaded for it."""
    kind = kind_of(config)
    if not capabilities_of(kind).videos:
        return f"backend {kind!r} does not read it; use the transformers backend, or leave the row out"
    member_fault = getattr(plugins.load(FAMILY, kind), "video_fault", None)
    return None if member_fault is None else member_fault(config)


def check(config: Config, sampling: Sampling, constraint: Constraint | None) -> None:
    """Check what a member is asked to do, before anything is loaded.

    Args:
        config: The configuration of a member.
        sampling: How text is to be drawn.
        constraint: What answers must match; None for free answers.

    Raises:
        ConfigError: The engine cannot do it.
    """
    kind = kind_of(config)
    if constraint is not None and not capabilities_of(kind).constrained:
        raise ConfigError(f"backend {kind!r} cannot constrain what is written")
    member_check = getattr(plugins.load(FAMILY, kind), "check", None)
    if member_check is not None:
        member_check(config, sampling, constraint)
