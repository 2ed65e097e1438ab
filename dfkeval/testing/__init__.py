"""Test tool-call parsers, ours and others.

conformance   the table of cases, and a driver (needs dfkeval only)
roundtrip     random calls in four levels of hostility, and the verdict on a parser
strategies    Hypothesis strategies for schema instances, calls and hostile text (needs hypothesis)"""
