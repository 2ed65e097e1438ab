"""The `dfktrain` command line: each command is a file of this room and one line here.

Results go to stdout, progress to stderr. The exit status is 0 if the command did its work and 2 for wrong
usage or configuration."""

from __future__ import annotations

from dfkdata.common.console import application, examples, keeping_private, run_app, trusting, with_media_roots
from dfktrain.cli import check, curves, demo, init, merge, push, rft, run, sweep

app = application(
    "dfktrain",
    "Fine-tune a small vision-language model.",
    examples("dfktrain init", "dfktrain run train.yaml --out runs/first"),
)
app.command("run", epilog=run.EXAMPLES)(keeping_private(trusting(run.run_command)))
app.command("check", epilog=check.EXAMPLES)(trusting(check.check_command))
app.command("demo", epilog=demo.EXAMPLES)(demo.demo_command)
app.command("init", epilog=init.EXAMPLES)(init.init_command)
app.command("sweep", epilog=sweep.EXAMPLES)(keeping_private(trusting(sweep.sweep_command)))
app.command("merge", epilog=merge.EXAMPLES)(with_media_roots(merge.merge_command))
app.command("rft", epilog=rft.EXAMPLES)(keeping_private(trusting(rft.rft_command)))
app.command("push", epilog=push.EXAMPLES)(push.push_command)
app.command("curves", epilog=curves.EXAMPLES)(curves.curves_command)


def main() -> None:
    """Run the command; a `DfkError` becomes one message on stderr and exit status 2."""
    run_app(app, "dfktrain")
