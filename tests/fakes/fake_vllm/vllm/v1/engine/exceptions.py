"""The errors of an engine, which derive from none of Python's own but `Exception`."""


class EngineGenerateError(Exception):
    pass


class EngineDeadError(Exception):
    pass
