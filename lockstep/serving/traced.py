"""The client, with a span for each round trip and one for decoding; used where spans go out."""

import time
from collections.abc import Generator, Sequence
from typing import TypeVar

from lockstep.errors import OnlineError
from lockstep.serving.aclient import AsyncClient
from lockstep.serving.tracing import CURRENT, Trace
from lockstep.stores.deadline import Deadline
from lockstep.stores.resp import Batch, Reply

T = TypeVar("T")


class TracedClient(AsyncClient):
    """An asynchronous client that records what it does in the current trace."""

    async def _run(self, steps: Generator[Batch, Sequence[Reply], T], deadline: Deadline) -> T:
        trace = CURRENT.get()
        return await super()._run(steps if trace is None else _timed(steps, trace), deadline)


def _timed(
    steps: Generator[Batch, Sequence[Reply], T], trace: Trace
) -> Generator[Batch, Sequence[Reply], T]:
    """Pass everything through; record "redis" per answer, and "decode" for what follows the last.

    Args:
        steps: What a client carries the bytes of.
    """
    decoding = time.time_ns()
    try:
        batch = next(steps)
        while True:
            asked = time.time_ns()
            try:
                replies = yield batch
            except OnlineError as error:
                decoding = time.time_ns()
                trace.step("redis", asked, decoding)
                batch = steps.throw(error)
            else:
                decoding = time.time_ns()
                trace.step("redis", asked, decoding)
                batch = steps.send(replies)
    except StopIteration as done:
        trace.step("decode", decoding, time.time_ns())
        result: T = done.value
        return result
