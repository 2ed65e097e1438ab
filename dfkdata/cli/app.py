"""The `dfkdata` command line: each command is a file of this room and one line here.

Data goes to stdout, progress and errors to stderr. The exit status is 0 if the command did its work, 1 if
more rows were rejected than --max-rejects allows (all files are written), 2 for wrong usage or an error. `diff` exits
as the program of that name: 0 if nothing differs, 1 if something does."""

from __future__ import annotations

from dfkdata.cli import card, check, convert, diff, merge, preview, schema
from dfkdata.common.console import application, keeping_private, run_app, with_limits, with_media_roots

app = application(
    "dfkdata", "Convert raw data into training rows; every row is written, or rejected with a reason."
)
app.command("convert", epilog=convert.EXAMPLES)(
    keeping_private(with_limits(with_media_roots(convert.convert_command)))
)
app.command("check", epilog=check.EXAMPLES)(with_limits(with_media_roots(check.check_command)))
app.command("preview", epilog=preview.EXAMPLES)(with_limits(with_media_roots(preview.preview_command)))
app.command("card", epilog=card.EXAMPLES)(with_media_roots(card.card_command))
app.command("diff", epilog=diff.EXAMPLES)(with_limits(with_media_roots(diff.diff_command)))
app.command("merge", epilog=merge.EXAMPLES)(
    keeping_private(with_limits(with_media_roots(merge.merge_command)))
)
app.command("schema", epilog=schema.EXAMPLES)(schema.schema_command)


def main() -> None:
    """Run the command; a `DfkError` becomes one message on stderr and exit status 2."""
    run_app(app, "dfkdata")
