"""`dfkeval serve`: one JSON endpoint over any backend."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from dfkdata.common.errors import ConfigError, missing_package
from dfkeval.cli import model_options as engine_options
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = (
    "Examples:\n\n"
    "  dfkeval serve --model tiny --adapter train/adapter --port 8080\n\n"
    "  dfkeval serve --url http://127.0.0.1:8000/v1 --model dfk --schema dfk_label --limit workers=8"
)


def serve_command(
    model: engine_options.Model = None,
    adapter: engine_options.Adapter = None,
    schema: engine_options.SchemaName = None,
    variant: engine_options.Variant = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8080,
    confidences: Annotated[bool, typer.Option(help="Also say how sure the model is of each label.")] = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Abstain below this probability: 0.8, or for one label fitnah=0.9."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="body, pixels, images, characters, timeout, upload, queue, batch, workers."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Environment variable with the bearer token that callers must send.")
    ] = None,
    scaffold: engine_options.ScaffoldFile = None,
    url: engine_options.Url = None,
    key: engine_options.Key = None,
    backend: engine_options.BackendText = None,
    set_: engine_options.Settings = None,
) -> None:
    """Answer POST /predict with typed JSON, one question a request (docs/serving.md)."""
    from dfkeval.cli.predict import threshold_of
    from dfkeval.inference import backend_options
    from dfkeval.inference.predictor import Predictor

    quiet_libraries()
    try:
        import uvicorn

        from dfkeval.inference.serving import server
        from dfkeval.inference.serving.app import application
    except ModuleNotFoundError as error:
        raise missing_package("dfkeval serve", error.name or "uvicorn", "serve") from error
    from dfkeval.inference.serving.limits import Limits

    limits = backend_options.changed(Limits(), limit or (), "--limit")
    secret = None if token is None else os.environ.get(token)
    if token is not None and not secret:
        raise ConfigError(f"--token: the environment variable {token} is not set")
    ask = Predictor(
        backend=backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend),
        schema=schema, variant=variant, settings=set_ or (), scaffold=scaffold,
        confidences=confidences, threshold=threshold_of(threshold or ()),
    )  # fmt: skip
    if limits.workers > 1 and not ask.backend.capabilities.parallel:
        raise ConfigError("--limit workers: a local model answers one batch at a time; raise batch instead")
    sys.stderr.write(f"dfkeval: http://{host}:{port}/predict answers in {ask.schema.name}\n")
    app = application(ask, limits, secret)
    running = uvicorn.Server(server.config(app, limits, host=host, port=port, log_level="warning"))
    with contextlib.suppress(KeyboardInterrupt):
        running.run()
