"""The command `lockstep`: thin over the Python API, which a command imports when it runs."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lockstep.cli.commands import app
    from lockstep.serving.command import ServeOptions

__all__ = ["app", "main"]

_SERVE = "serve"
_REFUSED = 2
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit: 0 ok, 1 a promise does not hold, 2 bad input or settings."""
    if sys.argv[1:2] == [_SERVE]:
        from lockstep.serving.command import ServeOptions

        options = ServeOptions.read(sys.argv[2:])
        if options is not None:
            sys.exit(_served(options))
    from lockstep.cli.commands import app

    app(prog_name="lockstep")


def __getattr__(name: str) -> Any:
    """Return `app`, every command by name, which a service starts without."""
    if name == "app":
        from lockstep.cli.commands import app

        return app
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def _served(options: "ServeOptions") -> int:
    """Serve as the command line would, and end as it would."""
    from lockstep.errors import LockstepError
    from lockstep.serving.command import serve

    try:
        return serve(options)
    except LockstepError as error:
        from lockstep.cli.console import show_error

        show_error(error)
        return _REFUSED
    except KeyboardInterrupt:
        return _INTERRUPTED
