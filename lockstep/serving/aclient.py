"""The asynchronous client: the same meaning as the blocking one, for services on asyncio."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Self, TypeVar

from lockstep.catalog import Catalog, discover
from lockstep.clock import utc_now
from lockstep.errors import OnlineError
from lockstep.online import MissingPolicy, Vectors
from lockstep.project import find_project
from lockstep.serving.breaker import Breaker
from lockstep.serving.client import DEADLINE, LOOK_SECONDS, POLL_SECONDS, url_of
from lockstep.serving.entities import Entities
from lockstep.serving.plan import Features, Plan
from lockstep.serving.steps import FetchSteps, Outage
from lockstep.serving.watch import Watch
from lockstep.stores.address import Address
from lockstep.stores.areading import AsyncReading
from lockstep.stores.deadline import Deadline
from lockstep.stores.resp import Batch, Reply

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("lockstep.serving")


class AsyncClient:
    """Fetches feature vectors on one event loop; any number of tasks may share it.

    Until it has been started, or has looked, it does not know whether a view is complete, and calls
    a cell without a stored row "error".

    Args:
        catalog: What is declared.
        url: `redis://`, `rediss://` (TLS) or `unix://`; of a cluster, any node.
        namespace: Beginning of every key, e.g. "lockstep:dev".
        deadline: Seconds that a fetch may take in all: waiting, connecting and retrying included.
        connections: To each node, at most; many fetches share one.
        poll: Seconds between looks at seals and notes, once started.
        outage: What a fetch does when the store does not answer in time: "fallback" marks every
            cell "error" and puts the declared fallbacks there, "raise" raises OnlineError.
        breaker: Opens after five failures in a row and tries again every half second.
        now: Returns the present instant (UTC), which decides what has expired.
        clock: Returns seconds that never go back; the breaker and the looks go by it.

    Raises:
        ConfigError: The URL or the namespace is malformed, or a TLS file in the URL cannot be read.
            Nothing is connected yet.
    """

    def __init__(
        self,
        catalog: Catalog,
        url: str,
        *,
        namespace: str,
        deadline: float = DEADLINE,
        connections: int = 2,
        poll: float = POLL_SECONDS,
        outage: Outage = "fallback",
        breaker: Breaker | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = Address.parse(url)
        self.breaker: Final = breaker or Breaker()
        self.deadline: Final = deadline
        self._reading: Final = AsyncReading(
            address, connections=connections, connecting=max(LOOK_SECONDS, deadline)
        )
        self._steps: Final = FetchSteps(
            catalog,
            namespace,
            address.place,
            breaker=self.breaker,
            outage=outage,
            now=now,
            clock=clock,
        )
        self._poll: Final = poll
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Self:
        """Open the project at or above `folder` (the current one if not given).

        Raises:
            ConfigError: There is no project, or its settings are wrong.
            OnlineError: Its store is the embedded server, which was never started.
        """
        project = find_project(folder)
        return cls(discover(project), url_of(project), namespace=project.namespace)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def watch(self) -> Watch:
        """Seals and facts as last seen."""
        return self._steps.watch

    @property
    def last_look(self) -> float:
        """Seconds since seals and facts were last seen; infinite if they never were."""
        return self._steps.last_look

    @property
    def readiness(self) -> Mapping[str, str]:
        """View → why it is not ready, as last seen."""
        return self._steps.watch.not_ready

    async def start(self) -> None:
        """Compile the plans of all feature sets, connect, look at the seals, and keep looking.

        A store that does not answer is no error: its views are not ready until it does.
        """
        self._steps.warm()
        if self._watching is None:
            await self._tend()
            self._watching = asyncio.create_task(self._watch(), name="lockstep-watch")

    async def close(self) -> None:
        """Stop looking and close the connections; the client may be started again."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        self._reading.close()

    async def look(self) -> None:
        """Look at seals, notes and schemas now; a started client does it by itself.

        Raises:
            OnlineError: The store does not answer within a second, or the deadline if longer.
        """
        await self._run(self._steps.look(), Deadline.after(max(LOOK_SECONDS, self.deadline)))

    def plan(self, features: Features) -> Plan:
        """The compiled plan of a list of features; compiled once, and not fetched.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
        """
        return self._steps.plan(features)

    async def fetch(
        self,
        features: Plan | Features,
        entities: Entities,
        *,
        on_missing: MissingPolicy = None,
        deadline: float | None = None,
    ) -> Vectors:
        """Fetch vectors: a row per entity, in order, in one round trip.

        Args:
            features: A plan, a feature set (or its name), or a list of features or `view:feature`.
            entities: A mapping per entity, a sequence per key column, or a frame.
            on_missing: What a cell without a value gets; the contract's word if None.
            deadline: Seconds in all, if other than the client's.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
            InputError: A key is absent or has the wrong type.
            MissingFeatureError: A cell has no value and its policy is "fail".
            OnlineError: The store does not answer, and a policy is "fail" or outages are raised.
        """
        until = Deadline.after(self.deadline if deadline is None else deadline)
        return await self._run(self._steps.steps(features, entities, on_missing), until)

    async def _watch(self) -> None:
        tick = min(self._poll, self.breaker.cool_down)
        while True:
            await asyncio.sleep(tick)
            await self._tend()

    async def _tend(self) -> None:
        """Try a store that was spared, and look at it if that is due; nothing ends the watch."""
        try:
            await self._run(self._steps.probe(), Deadline.after(self.deadline))
            if self._steps.look_is_due(self._poll):
                await self.look()
        except OnlineError:
            pass  # the breaker, or the watch, has noted it
        except Exception as error:
            _LOGGER.exception("The online store could not be looked at. It is tried again.")
            self._steps.watch.failed(error)

    async def _run(self, steps: Generator[Batch, Sequence[Reply], T], deadline: Deadline) -> T:
        """Carry the bytes of each step."""
        try:
            batch = next(steps)
            while True:
                try:
                    replies = await self._reading.read(batch, deadline)
                except OnlineError as error:
                    batch = steps.throw(error)
                else:
                    batch = steps.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result
