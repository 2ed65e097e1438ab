"""`dfkeval serve`: answer questions over HTTP, with any backend."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkdata.common import credentials
from dfkdata.common.console import examples, say
from dfkdata.common.errors import ConfigError, missing_package
from dfkdata.common.status_line import now
from dfkeval.cli import model_options
from dfkeval.models.quiet import quiet_libraries

EXAMPLES = examples(
    "dfkeval serve --model tiny --adapter train/adapter --port 8080",
    "dfkeval serve --url http://127.0.0.1:8000/v1 --model dfk --schema dfk_label --limit workers=8",
)


def serve_command(
    model: model_options.Model = None,
    adapter: model_options.Adapter = None,
    schema: model_options.SchemaName = None,
    variant: model_options.Variant = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8080,
    confidences: model_options.Confidences = False,
    threshold: model_options.ThresholdText = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="As name=value: body, pixels, images, characters, tokens, batch_pixels, timeout, upload, "
            "connections, queue, batch, workers."
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Environment variable with the bearer token that callers must send.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that the Host header may say; others are refused. May be repeated."),
    ] = None,
    scaffold: model_options.ScaffoldFile = None,
    url: model_options.Url = None,
    key: model_options.Key = None,
    backend: model_options.BackendText = None,
    set_: model_options.Settings = None,
) -> None:
    """Answer POST /predict with typed JSON, one question a request (docs/serving.md)."""
    from dfkeval.inference import backend_options
    from dfkeval.inference.predictor import Predictor

    quiet_libraries()
    try:
        from dfkeval.inference.serving import server
        from dfkeval.inference.serving.app import application
    except ModuleNotFoundError as error:
        raise missing_package("dfkeval serve", error.name or "uvicorn", "serve") from error
    from dfkeval.inference.serving.limits import Limits

    limits = backend_options.changed(Limits(), limit or (), "--limit")
    secret = None if token is None else credentials.from_environment(token)
    if token is not None and not secret:
        way = "" if credentials.is_variable(token) else "; write the variable's name, not the token itself"
        name = token if credentials.is_variable(token) else "that it names"
        raise ConfigError(f"--token: the environment variable {name} is not set{way}")
    predictor = Predictor(
        backend=backend_options.configured(model, adapter, urls=url or (), key=key, backend=backend),
        schema=schema, variant=variant, settings=set_ or (), scaffold=scaffold,
        confidences=confidences, threshold=model_options.threshold_of(threshold or ()),
    )  # fmt: skip
    if limits.workers > 1 and not predictor.backend.capabilities.parallel:
        raise ConfigError("--limit workers: a local model answers one batch at a time; raise batch instead")
    say(f"dfkeval: http://{host}:{port}/predict answers in {predictor.schema.name}")
    app = application(predictor, limits, secret, allow_host or ())
    now("")
    server.run(app, limits, host, port, is_stuck=lambda: app.state.service.batcher.running)
