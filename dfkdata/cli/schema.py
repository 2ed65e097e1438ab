"""`dfkdata schema`: an output schema as JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from dfkdata.common.console import examples, write

EXAMPLES = examples("dfkdata schema caption", "dfkdata schema dfk_label --variant card")


def schema_command(
    name: Annotated[str, typer.Argument(help="Name of an output schema.")],
    variant: Annotated[str | None, typer.Option("--variant", help="Variant of the schema.")] = None,
) -> None:
    """Print an output schema: its JSON Schema, roles, variants and tools."""
    from dfkdata.common.json_files import encode
    from dfkdata.reports.preview import schema_facts

    write(encode(schema_facts(name, variant)).decode())
