"""The web application of `dfkeval view`: pages, and what a page asks to stay true.

GET /                          all runs
GET /run/NAME                  one run
GET /compare?run=A&run=B...    runs compared with the first
GET /state?run=NAME            a text that changes with the run's files; of all runs without a name
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dfkdata.common import credentials
from dfkdata.common.errors import DfkError
from dfkdata.common.hosts import host_of
from dfkeval.reports.viewing.found import FoundRun
from dfkeval.reports.viewing.pages import Viewer

LOCAL = ("127.0.0.1", "localhost", "[::1]")
MOST_COMPARED = 8
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # what the page may load says the page itself
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(viewer: Viewer, hosts: Sequence[str] = LOCAL) -> Starlette:
    """Return the application, which any ASGI server runs.

    Args:
        viewer: Writes the pages.
        hosts: Names that the Host header may say; another page on the web cannot turn its name to this server.
    """

    def route(path: str, answer: Callable[[Viewer, Request], Response]) -> Route:
        def endpoint(request: Request) -> Response:  # runs in a thread, for it reads files
            if host_of(request.headers.get("host", "")) not in hosts:
                response = _plain(400, f"the Host header names none of {', '.join(hosts)}")
            else:
                response = _answered(answer, viewer, request)
            response.headers.update(_HEADERS)
            return response

        return Route(path, endpoint, methods=["GET"])

    return Starlette(
        routes=[
            route("/", _index),
            route("/run/{name:path}", _run),
            route("/compare", _compare),
            route("/state", _state),
            route("/favicon.ico", _no_icon),
        ],
        exception_handlers={HTTPException: _other},
    )


def _answered(answer: Callable[[Viewer, Request], Response], viewer: Viewer, request: Request) -> Response:
    try:
        return answer(viewer, request)
    except HTTPException as error:
        return _plain(error.status_code, str(error.detail))
    except (DfkError, OSError) as error:
        return _plain(409, f"this cannot be shown: {credentials.hidden(str(error))}")


def _index(viewer: Viewer, _: Request) -> Response:
    return HTMLResponse(viewer.index())


def _run(viewer: Viewer, request: Request) -> Response:
    (found,) = _found(viewer, [request.path_params["name"]])
    return HTMLResponse(viewer.run(found))


def _compare(viewer: Viewer, request: Request) -> Response:
    names = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 2 <= len(names) <= MOST_COMPARED:
        raise HTTPException(422, f"name two to {MOST_COMPARED} runs: /compare?run=A&run=B")
    runs = _found(viewer, names)
    if unfinished := [run.name for run in runs if not run.is_scored]:
        raise HTTPException(422, f"{unfinished[0]} is not finished; it is compared when it has been scored")
    return HTMLResponse(viewer.comparison(runs))


def _state(viewer: Viewer, request: Request) -> Response:
    return JSONResponse({"state": viewer.state(request.query_params.getlist("run"))})


def _no_icon(_: Viewer, __: Request) -> Response:
    return Response(status_code=204)  # a browser asks without being told to, and notes a refusal


def _found(viewer: Viewer, names: Sequence[str]) -> list[FoundRun]:
    runs = viewer.runs()
    for name in names:
        if name not in runs:
            raise HTTPException(404, f"no run is called {name!r}")
    return [runs[name] for name in names]


async def _other(_: Request, error: Exception) -> Response:
    """Refuse unknown paths and methods."""
    assert isinstance(error, HTTPException)
    response = _plain(error.status_code, f"{error.detail}: there are GET /, /run/NAME and /compare")
    with contextlib.suppress(TypeError):
        response.headers.update(error.headers or {})
    response.headers.update(_HEADERS)
    return response


def _plain(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status)
