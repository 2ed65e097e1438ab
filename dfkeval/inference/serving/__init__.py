"""One JSON endpoint over any backend: `dfkeval serve`.

    limits    what a caller may ask for, and the refusals
    intake    bytes -> `Record`, or a `Refusal`; nothing outside the request is ever opened
    batching  records -> samples: a bounded queue, batches in threads, a time limit
    server    the socket, by uvicorn: what holds on without asking is closed
    app       the ASGI application: routes, statuses, health and metrics

Promises: what is not within the limits is refused before anything is decoded or asked; a full queue is an
answer (503) and never a wait without end; every accepted request is answered, by a judged sample or by the
reason why there is none. Weighed: Starlette and uvicorn are small, maintained and what vLLM's own server
stands on; a server of our own would have to be all that, and threads a connection would not bound memory."""
