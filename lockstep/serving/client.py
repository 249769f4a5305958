"""The blocking client: feature vectors for notebooks, the command line and model servers."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Self, TypeVar

from lockstep.catalog import Catalog, discover
from lockstep.clock import utc_now
from lockstep.errors import OnlineError
from lockstep.online import MissingPolicy, Vectors
from lockstep.project import Project, find_project
from lockstep.serving.breaker import Breaker
from lockstep.serving.entities import Entities
from lockstep.serving.plan import Features, Plan
from lockstep.serving.steps import FetchSteps, Outage
from lockstep.serving.watch import Watch
from lockstep.stores.address import Address
from lockstep.stores.deadline import Deadline
from lockstep.stores.reading import Reading
from lockstep.stores.resp import Batch, Reply

T = TypeVar("T")

DEADLINE: Final = 0.05
POLL_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 1.0
_LOGGER: Final = logging.getLogger("lockstep.serving")


def url_of(project: Project) -> str:
    """The URL of a project's online store: its own, or the embedded server's.

    Raises:
        OnlineError: It is the embedded server, which was never started.
    """
    if project.redis_url is not None:
        return project.redis_url
    from lockstep.stores.server import EmbeddedServer

    return EmbeddedServer(project.state / "redis").url


class Client:
    """Fetches feature vectors. Safe to share between threads; start it after a fork.

    Until it has been started, or has looked, it does not know whether a view is complete, and calls
    a cell without a stored row "error".

    Args:
        catalog: What is declared.
        url: `redis://`, `rediss://` (TLS) or `unix://`; of a cluster, any node.
        namespace: Beginning of every key, e.g. "lockstep:dev".
        deadline: Seconds that a fetch may take in all: waiting, connecting and retrying included.
        connections: To each node, at most.
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
        connections: int = 16,
        poll: float = POLL_SECONDS,
        outage: Outage = "fallback",
        breaker: Breaker | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = Address.parse(url)
        self.breaker: Final = breaker or Breaker()
        self.deadline: Final = deadline
        self._reading: Final = Reading(address, connections=connections)
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
        self._stopped: threading.Event | None = None

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Self:
        """Open the project at or above `folder` (the current one if not given).

        Raises:
            ConfigError: There is no project, or its settings are wrong.
            OnlineError: Its store is the embedded server, which was never started.
        """
        project = find_project(folder)
        return cls(discover(project), url_of(project), namespace=project.namespace)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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

    def start(self) -> None:
        """Compile the plans of all feature sets, connect, look at the seals, and keep looking.

        A store that does not answer is no error: its views are not ready until it does.
        """
        self._steps.warm()
        if self._stopped is None:
            self._stopped = threading.Event()
            self._tend()
            tick = min(self._poll, self.breaker.cool_down)
            watching = (weakref.ref(self), self._stopped, tick)
            threading.Thread(
                target=_watch, args=watching, name="lockstep-watch", daemon=True
            ).start()

    def close(self) -> None:
        """Stop looking and close the connections; the client may be started again."""
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None
        self._reading.close()

    def look(self) -> None:
        """Look at seals, notes and schemas now; a started client does it by itself.

        Raises:
            OnlineError: The store does not answer within a second, or the deadline if longer.
        """
        self._run(self._steps.look(), Deadline.after(max(LOOK_SECONDS, self.deadline)))

    def plan(self, features: Features) -> Plan:
        """The compiled plan of a list of features; compiled once, and not fetched.

        Raises:
            UnknownNameError: A view, feature or feature set does not exist.
        """
        return self._steps.plan(features)

    def fetch(
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
        return self._run(self._steps.steps(features, entities, on_missing), until)

    def _tend(self) -> None:
        """Try a store that was spared, and look at it if that is due; nothing ends the watch."""
        try:
            self._run(self._steps.probe(), Deadline.after(self.deadline))
            if self._steps.look_is_due(self._poll):
                self.look()
        except OnlineError:
            pass  # the breaker, or the watch, has noted it
        except Exception as error:
            _LOGGER.exception("The online store could not be looked at. It is tried again.")
            self._steps.watch.failed(error)

    def _run(self, steps: Generator[Batch, Sequence[Reply], T], deadline: Deadline) -> T:
        """Carry the bytes of each step."""
        try:
            batch = next(steps)
            while True:
                try:
                    replies = self._reading.read(batch, deadline)
                except OnlineError as error:
                    batch = steps.throw(error)
                else:
                    batch = steps.send(replies)
        except StopIteration as done:
            result: T = done.value
            return result


def _watch(client: "weakref.ref[Client]", stopped: threading.Event, tick: float) -> None:
    """Tend a client until it is stopped or forgotten."""
    while not stopped.wait(tick):
        found = client()
        if found is None:
            return
        found._tend()  # noqa: SLF001 - the other half of the class, outside so as not to hold it
        del found
