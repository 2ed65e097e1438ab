"""The `dfkeval` command line: each command is a file of this room and one line here.

Results go to stdout, progress to stderr. The exit status is 0 if the command did its work, 1 if more requests
failed than allowed, a condition holds or an answer is not valid, and 2 for wrong usage or configuration."""

from __future__ import annotations

from dfkdata.common.console import (
    application,
    keeping_private,
    run_app,
    trusting,
    with_limits,
    with_media_roots,
)
from dfkeval.cli import (
    chat,
    compare,
    init,
    label,
    merge_runs,
    parse,
    predict,
    report,
    run,
    runs,
    score,
    serve,
    view,
)

app = application("dfkeval", "Ask a model, read its answers, and score them.")
app.command("run", epilog=run.EXAMPLES)(keeping_private(trusting(run.run_command)))
app.command("score", epilog=score.EXAMPLES)(trusting(score.score_command))
app.command("compare", epilog=compare.EXAMPLES)(trusting(compare.compare_command))
app.command("report", epilog=report.EXAMPLES)(trusting(report.report_command))
app.command("init", epilog=init.EXAMPLES)(init.init_command)
app.command("label", epilog=label.EXAMPLES)(
    keeping_private(with_limits(with_media_roots(label.label_command)))
)
app.command("serve", epilog=serve.EXAMPLES)(trusting(serve.serve_command))
app.command("view", epilog=view.EXAMPLES)(trusting(view.view_command))
app.command("predict", epilog=predict.EXAMPLES)(
    keeping_private(with_limits(trusting(predict.predict_command)))
)
app.command("chat", epilog=chat.EXAMPLES)(trusting(chat.chat_command))
app.command("pool", epilog=runs.POOL_EXAMPLES)(trusting(runs.pool_command))
app.command("samples", epilog=runs.SAMPLES_EXAMPLES)(trusting(runs.samples_command))
app.command("track", epilog=runs.TRACK_EXAMPLES)(trusting(runs.track_command))
app.command("parse", epilog=parse.EXAMPLES)(parse.parse_command)
app.command("merge-runs", epilog=merge_runs.EXAMPLES)(trusting(merge_runs.merge_runs_command))
app.command("history", epilog=runs.HISTORY_EXAMPLES)(runs.history_command)
app.command("suspects", epilog=runs.SUSPECTS_EXAMPLES)(trusting(runs.suspects_command))


def main() -> None:
    """Run the command; a `DfkError` becomes one message on stderr and exit status 2."""
    run_app(app, "dfkeval")
