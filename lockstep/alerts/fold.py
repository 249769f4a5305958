"""The last state and a look → the next state. Pure: nothing is read, written or sent."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from lockstep.alerts.asking import Model, requested, with_requests
from lockstep.alerts.problem import Kind, Look, Problem
from lockstep.alerts.state import CLAIM, Episode, State

LASTING: Final[Mapping[Kind, timedelta]] = {
    "not_ready": timedelta(minutes=5),
    "parity": timedelta(minutes=15),
    "code_changed": timedelta(minutes=15),
}
"""How long a problem must last that is usually mended before anybody could read of it."""

KEPT: Final = timedelta(days=30)
"""How long what is over waits for a receiver that cannot be told."""

AT_ONCE: Final = timedelta(minutes=10)
"""How far the clocks of two processes may be apart, and how long a look may take."""

QUIET: Final = timedelta(minutes=15)
"""How long what was over and came back must be gone to be over again."""


def advance(state: State, look: Look, now: datetime, models: Collection[Model] = ()) -> State:
    """Return the state after a look: problems that began are open, those that are over healed.

    The same look again gives the same state, and one that is a little older than the last changes
    nothing: two processes looked at once. If it is much older, a clock was ahead, and what was
    seen then is as of now.

    Args:
        models: The feature sets, for each of which one training set is requested when features of
            it drift.
    """
    if set_back(state, now):
        state = _as_of(state, now)
    elif now < state.at:
        return state
    retraining = requested(state.retraining, look.drifting, models)
    found = {each.key: with_requests(each, look, models, retraining) for each in look.problems}
    open_now = {ep.problem.key: name for name, ep in state.episodes.items() if ep.healed is None}
    waiting = {
        key: first for key, first in state.waiting.items() if key in found or not look.over(key)
    }
    over = {key: at for key, at in state.over.items() if now - at < QUIET}
    episodes = dict(state.episodes)
    for key, each in found.items():
        if key in open_now:
            episodes[open_now[key]] = _seen_again(episodes[open_now[key]], each)
            continue
        first = min(waiting.get(key, now), each.since)
        if now - first >= LASTING.get(each.kind, timedelta(0)):
            waiting.pop(key, None)
            began = Episode(replace(each, since=first), now, returned=key in over)
            episodes[_identity(key, now)] = began
        else:
            waiting.setdefault(key, now)
    for key, name in open_now.items():
        if key not in found and look.over(key):
            episodes[name] = _not_seen(episodes[name], now)
            over |= {key: now} if episodes[name].healed is not None else {}
    return replace(
        state, at=now, episodes=episodes, waiting=waiting, retraining=retraining, over=over
    )


def _seen_again(before: Episode, found: Problem) -> Episode:
    # `since` stays: some looks can only say "now".
    return replace(before, problem=replace(found, since=before.problem.since), gone=None)


def _not_seen(before: Episode, now: datetime) -> Episode:
    """Return the episode healed; one that comes and goes only after it has been gone for long."""
    gone = before.gone or now
    if before.returned and now - gone < QUIET:
        return replace(before, gone=gone)
    return replace(before, healed=gone, gone=None)


def set_back(state: State, now: datetime) -> bool:
    """Whether the last look was made by a clock that was ahead: now is long before it."""
    return state.at - now > AT_ONCE


def _as_of(state: State, now: datetime) -> State:
    """Return the state without an instant that is still to come."""

    def until(at: datetime) -> datetime:
        return min(at, now)

    episodes = {
        name: replace(
            ep,
            problem=replace(ep.problem, since=until(ep.problem.since)),
            opened=until(ep.opened),
            healed=ep.healed and until(ep.healed),
            gone=ep.gone and until(ep.gone),
            told={who: replace(told, at=until(told.at)) for who, told in ep.told.items()},
        )
        for name, ep in state.episodes.items()
    }
    return replace(
        state,
        at=now,
        episodes=episodes,
        waiting={key: until(first) for key, first in state.waiting.items()},
        over={key: until(at) for key, at in state.over.items()},
        claims={
            name: replace(claim, until=min(claim.until, now + CLAIM))
            for name, claim in state.claims.items()
        },
        troubles={
            name: replace(each, since=until(each.since)) for name, each in state.troubles.items()
        },
    )


def forget(state: State, receivers: Mapping[str, Collection[str]], now: datetime) -> State:
    """Return the state without healed episodes of which everybody was told, or nobody is to be.

    Nor those of a month ago: a receiver that is gone for ever would keep them for ever.

    Args:
        receivers: Identity of an episode → the receivers that are to be told of it.
    """
    episodes = {
        name: ep
        for name, ep in state.episodes.items()
        if ep.healed is None
        or (
            now - ep.healed < KEPT
            and any(not told_all(ep, each) for each in receivers.get(name, ()))
        )
    }
    claims = {name: claim for name, claim in state.claims.items() if claim.until > now}
    return replace(state, episodes=episodes, claims=claims)


def told_all(episode: Episode, receiver: str) -> bool:
    """Whether a receiver knows how the episode stands."""
    told = episode.told.get(receiver)
    return told is not None and told.stage == ("open" if episode.healed is None else "healed")


def differs(one: State, other: State) -> bool:
    """Whether two states differ in more than the words of problems that go on.

    One that is older differs: until it is kept, every look is long before the last.
    """
    return other.at < one.at or _bones(one) != _bones(other)


def _bones(state: State) -> object:
    episodes = {
        name: (ep.healed, ep.gone, ep.told, ep.problem.severity, ep.problem.owner)
        for name, ep in state.episodes.items()
    }
    return episodes, state.waiting, state.claims, state.troubles, state.retraining


def _identity(key: str, now: datetime) -> str:
    return f"{key}@{now.isoformat()}"
