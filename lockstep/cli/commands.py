"""Every command by name, and how an error ends one."""

from typing import Any

import typer
from typer.core import TyperGroup

from lockstep.cli import (
    alerts,
    catalog,
    data,
    doctor,
    forget,
    gc,
    new,
    online,
    profile,
    quarantine,
    rebuild,
    reconcile,
    run,
    serve,
    slo,
    training,
    training_sets,
    why,
)
from lockstep.cli.console import USAGE, show_error
from lockstep.errors import LockstepError


class ErrorsAsBlocks(TyperGroup):
    """Ends with a readable block and status 2 where our own error ended a command.

    Any other exception is a bug of ours or of a view file and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LockstepError as error:
            show_error(error)
            raise typer.Exit(USAGE) from None


app = typer.Typer(
    cls=ErrorsAsBlocks,
    no_args_is_help=True,
    # Tracebacks with local variables would print rows and passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audited feature days in Delta, the same bits in Redis.",
    epilog="Exit status: 0 all well, 1 a promise does not hold or a day failed, 2 bad input.",
)

_RUN, _LOOK, _SERVE, _CARE = "Build", "Look", "Use", "Take care"

app.command("up", rich_help_panel=_RUN)(online.up)
app.command("down", rich_help_panel=_RUN)(online.down)
app.command("land", rich_help_panel=_RUN)(data.land)
app.command("materialize", rich_help_panel=_RUN)(run.materialize)
app.command("push", rich_help_panel=_RUN)(online.push)
app.command("ui", rich_help_panel=_RUN)(run.ui)
app.command("get", rich_help_panel=_SERVE)(online.get)
app.command("serve", rich_help_panel=_SERVE)(serve.serve)
app.command("training-set", rich_help_panel=_SERVE)(training.training_set)
app.command("rebuild", rich_help_panel=_SERVE)(rebuild.rebuild)
app.command("views", rich_help_panel=_LOOK)(catalog.views)
app.command("status", rich_help_panel=_LOOK)(catalog.status)
app.command("profile", rich_help_panel=_LOOK)(profile.profile)
app.command("why", rich_help_panel=_LOOK)(why.why)
app.command("metrics", rich_help_panel=_LOOK)(catalog.metrics)
app.command("parity", rich_help_panel=_CARE)(online.parity)
app.command("alerts", rich_help_panel=_CARE)(alerts.alerts)
app.command("reconcile", rich_help_panel=_CARE)(reconcile.reconcile)
app.command("sweep", rich_help_panel=_CARE)(online.sweep)
app.command("forget", rich_help_panel=_CARE)(forget.forget)
app.command("gc", rich_help_panel=_CARE)(gc.gc)
app.command("compact", rich_help_panel=_CARE)(gc.compact)
app.command("doctor", rich_help_panel=_CARE)(doctor.doctor)
app.command("preview", rich_help_panel=_CARE)(data.preview)
app.add_typer(quarantine.app, name="quarantine", rich_help_panel=_CARE)
app.add_typer(training_sets.app, name="training-sets", rich_help_panel=_SERVE)
app.add_typer(serve.app, name="token", rich_help_panel=_SERVE)
app.add_typer(slo.app, name="slo", rich_help_panel=_CARE)
app.add_typer(new.app, name="new", rich_help_panel=_RUN)
