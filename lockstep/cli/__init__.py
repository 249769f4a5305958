"""The command `lockstep`: thin over the Python API, which a command imports when it runs."""

from lockstep.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit: 0 ok, 1 a promise does not hold, 2 bad input or settings."""
    app(prog_name="lockstep")
