"""One tick: what a look found becomes the next state, and each receiver is told what it is not yet.

Before anything is sent, the state says who sends it; afterwards it says what was accepted. So two
ticks at once send nothing twice, and what failed is sent by the next tick, with what has happened
meanwhile. A process that dies between the two, or a receiver that accepts and does not say so,
means that a message comes once more: at least once is what is promised, not exactly once. Messages
carry an identity by which a receiver can tell.
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from lockstep.alerts.asking import Model
from lockstep.alerts.fold import advance, differs, forget, set_back
from lockstep.alerts.mail import send_mail
from lockstep.alerts.message import Message, claimed, delivered, due, released
from lockstep.alerts.posting import post
from lockstep.alerts.problem import Look
from lockstep.alerts.settings import AlertSettings, Receiver
from lockstep.alerts.state import CLAIM, State, States, Trouble
from lockstep.alerts.unexpected import UNEXPECTED, unexpected
from lockstep.errors import ConflictError

_LOGGER: Final = logging.getLogger("lockstep.alerts")
_ATTEMPTS: Final = 20
_NO_TIME: Final = "there was no time left"
_BUDGET: Final = 25.0  # seconds that one receiver may cost a tick

Send = Callable[[Receiver, Message, Mapping[str, str]], str | None]


@dataclass(frozen=True)
class Ticked:
    """What one tick did.

    Attributes:
        state: The state afterwards.
        sent: Receiver and message of what was accepted.
        failed: Receiver → why it could not be told.
    """

    state: State
    sent: Collection[tuple[str, Message]]
    failed: Mapping[str, str]


def send(receiver: Receiver, message: Message, environment: Mapping[str, str]) -> str | None:
    """Send a message in the receiver's form; return None if it was accepted, else why not."""
    sender = send_mail if receiver.type == "email" else post
    return sender(receiver, message, environment)


def tick(
    states: States,
    look: Look,
    settings: AlertSettings,
    *,
    project: str,
    models: Collection[Model],
    now: datetime,
    environment: Mapping[str, str],
    send: Send = send,
) -> Ticked:
    """Keep what a look found, and tell every receiver what it was not told yet.

    Args:
        project: The project's name and environment, for messages.
        environment: Where secrets are.

    Raises:
        ConflictError: Others kept changing the state; nothing was sent.
        StoreError: The lake does not answer. What was sent meanwhile is sent again.
    """
    by = uuid.uuid4().hex

    def begin(state: State) -> State:
        if set_back(state, now):
            _LOGGER.warning("The last look is of %s: a clock was ahead. It is %s.", state.at, now)
        after = forget(advance(state, look, now, models), _told_of(state, settings), now)
        mine = due(after, settings, project, now)
        return claimed(after, mine, by, now + CLAIM)

    state = change(states, begin)
    mine = {claim for claim, held in state.claims.items() if held.by == by}
    messages = {
        claim: message
        for claim, message in due(_unclaimed(state, mine), settings, project, now).items()
        if claim in mine
    }
    if not messages:
        return Ticked(state, (), {})
    results = _send_all(messages, settings, environment, send)

    def end(state: State) -> State:
        for claim, why in results.items():
            receiver = claim.partition("|")[0]
            if why is None:
                state = delivered(state, claim, messages[claim], receiver, by)
            else:
                state = released(state, claim, by)
        state = _with_troubles(state, results, now)
        return forget(state, _told_of(state, settings), now)

    state = change(states, end)
    sent = [(c.partition("|")[0], messages[c]) for c, why in results.items() if why is None]
    failed = {c.partition("|")[0]: why for c, why in results.items() if why is not None}
    return Ticked(state, sent, failed)


def change(states: States, step: Callable[[State], State]) -> State:
    """Apply a pure step to the newest state until nobody was faster; write nothing if equal.

    Raises:
        ConflictError: Others were faster every time.
        StoreError: The lake does not answer.
    """
    for _ in range(_ATTEMPTS):
        before = states.newest()
        after = step(before)
        if not differs(before, after):
            return after
        made = states.succeed(before, after)
        if made is not None:
            return made
    raise ConflictError(
        "The state of the alerts was changed by others all the time.",
        fix="Look whether many processes send alerts at once; one sensor is enough.",
        effect="Nothing was kept; the next tick makes up for it.",
    )


def _unclaimed(state: State, mine: Collection[str]) -> State:
    claims = {name: held for name, held in state.claims.items() if name not in mine}
    return replace(state, claims=claims)


def _told_of(state: State, settings: AlertSettings) -> dict[str, list[str]]:
    """Return identity of an episode → receivers that are told of it."""
    return {
        name: [receiver.name for receiver in settings.receivers if receiver.takes(ep.problem)]
        for name, ep in state.episodes.items()
    }


def _send_all(
    messages: Mapping[str, Message],
    settings: AlertSettings,
    environment: Mapping[str, str],
    send: Send,
) -> dict[str, str | None]:
    """Return claim → why it was not accepted; receivers are told side by side."""

    def tell(receiver: Receiver) -> dict[str, str | None]:
        results: dict[str, str | None] = {}
        ends = time.monotonic() + max(_BUDGET, receiver.timeout_seconds)
        for claim, message in messages.items():
            if claim.partition("|")[0] != receiver.name:
                continue
            # One that is refused keeps no other back, but one that hangs must not end the tick.
            late = time.monotonic() + receiver.timeout_seconds > ends and results
            results[claim] = _NO_TIME if late else attempt(receiver, message)
        return results

    def attempt(receiver: Receiver, message: Message) -> str | None:
        try:
            return send(receiver, message, environment)
        except UNEXPECTED as error:  # those who were told meanwhile must not be told again
            return unexpected(f"{receiver.name} could not be told", error)

    concerned = [r for r in settings.receivers if any(c.startswith(f"{r.name}|") for c in messages)]
    with ThreadPoolExecutor(max(1, len(concerned))) as pool:
        found: dict[str, str | None] = {}
        for results in pool.map(tell, concerned):
            found |= results
    return found


def _with_troubles(state: State, results: Mapping[str, str | None], now: datetime) -> State:
    """Remember who could not be told, for people; who took everything is well again."""
    troubles = dict(state.troubles)
    for name in {claim.partition("|")[0] for claim in results}:
        failed = [w for c, w in results.items() if c.partition("|")[0] == name and w is not None]
        before = troubles.pop(name, None)
        if failed:
            since, times = (before.since, before.times) if before else (now, 0)
            troubles[name] = Trouble(since, times + 1, failed[0])
    return replace(state, troubles=troubles)
