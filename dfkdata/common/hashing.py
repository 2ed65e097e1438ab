"""Names that come from content.

Promise: they depend on nothing else, not on row numbers, machines or Python versions. SHA-256 is used
throughout: with the processor's own instructions it is the fastest hash of the standard library, on short
texts too."""

from __future__ import annotations

from hashlib import sha256


def content_id(*values: str) -> str:
    """16 hex digits (64 bit) over `values` in order; moving a character between two values changes the
    name."""
    return sha256("\x1f".join(values).encode("utf-8", "surrogatepass")).hexdigest()[:16]
