"""Work on a thread that the end of the process does not wait for.

Asyncio's own threads are joined when the loop ends and again when the interpreter does: one that
waits for a store without a limit would hold up the stop of the service as long.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


async def in_daemon(work: Callable[[], T]) -> T:
    """Return what the work returns, or raise what it raises; if cancelled, it goes on alone."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        # Raised again where the outcome is awaited, which else would wait for ever: a panic of
        # Polars is no Exception.
        except BaseException as error:  # noqa: BLE001
            tell(partial(outcome.set_exception, error))
        else:
            tell(partial(outcome.set_result, result))

    def tell(settle: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if outcome.done() else settle())

    threading.Thread(target=run, name="lockstep-daemon", daemon=True).start()
    return await outcome
