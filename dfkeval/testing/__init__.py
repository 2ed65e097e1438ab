"""Tools for testing tool-call parsers, ours and others.

conformance   the table of cases and a driver (needs nothing but dfkeval)
strategies    Hypothesis strategies for schema instances, calls and hostile text (needs hypothesis)"""
