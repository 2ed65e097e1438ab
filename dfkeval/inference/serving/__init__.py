"""Serve one JSON endpoint over any backend (`dfkeval serve`).

    limits        what a caller may ask for, and the refusals
    request_body  the bytes of a request as a `Record`, or a `Refusal`; nothing outside the request is opened
    batching      a bounded queue, batches in threads, a time limit
    server        the socket, by uvicorn, which closes connections that do not ask, and too many
    openapi       the document that describes it
    app           the ASGI application: routes, statuses, health and metrics

Guarantees:
- A request beyond the limits is refused before anything is decoded or asked.
- A full queue is an answer (503), never an endless wait.
- Every accepted request is answered, by a graded sample or by the reason why there is none.

Starlette and uvicorn are small, maintained, and the base of vLLM's own server; with a thread for each
connection memory would not be bounded."""
