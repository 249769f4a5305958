"""The line between a worker and its supervisor: the worker's standard input is one end of it.

The worker says once that it answers requests. Neither end says anything else: that the other is
gone, however it ended, is the end of the stream, which needs no polling and can't be missed.
"""

import os
import socket
import stat
from contextlib import suppress
from typing import Final

_STANDARD_INPUT: Final = 0
_READY: Final = b"1"


def line_to_supervisor() -> socket.socket | None:
    """Return a worker's end; None if it was started by hand, and its standard input is none."""
    if not stat.S_ISSOCK(os.fstat(_STANDARD_INPUT).st_mode):
        return None
    return socket.socket(fileno=os.dup(_STANDARD_INPUT))


def say_ready(line: socket.socket) -> None:
    """Tell the supervisor that this worker answers requests."""
    with suppress(OSError):  # it is gone, which is seen on the line
        line.sendall(_READY)
