"""The last state and a look → the next state. Pure: nothing is read, written or sent."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from lockstep.alerts.problem import Drifting, Kind, Look, Problem
from lockstep.alerts.state import Episode, Retraining, State

LASTING: Final[Mapping[Kind, timedelta]] = {
    "not_ready": timedelta(minutes=5),
    "parity": timedelta(minutes=15),
    "code_changed": timedelta(minutes=15),
}
"""How long a problem must last that is usually mended before anybody could read of it."""

LONGEST_NAME: Final = 63
"""Characters of a training set's name."""

KEPT: Final = timedelta(days=30)
"""How long what is over waits for a receiver that cannot be told."""

_REMEMBERED: Final = 200  # requests for training sets


@dataclass(frozen=True)
class Model:
    """What a project declares of one feature set.

    Attributes:
        features: `view:feature`, in order.
        entities: The entities of their views.
        kept: The newest kept set of it, if it joins several entities and there is one.
    """

    name: str
    features: Collection[str]
    entities: Collection[str]
    kept: str = ""

    @property
    def has_spine(self) -> bool:
        """Whether it is known which entities belong together."""
        return len(self.entities) == 1 or bool(self.kept)


def advance(state: State, look: Look, now: datetime, models: Collection[Model] = ()) -> State:
    """Return the state after a look: problems that began are open, those that are over healed.

    The same look again gives the same state, and one that is older than the last changes nothing.

    Args:
        models: The feature sets, for each of which one training set is requested when features of
            it drift.
    """
    if now < state.at:
        return state
    retraining = _requested(state.retraining, look.drifting, models)
    found = {each.key: _with_requests(each, look, models, retraining) for each in look.problems}
    open_now = {ep.problem.key: name for name, ep in state.episodes.items() if ep.healed is None}
    waiting = {
        key: first for key, first in state.waiting.items() if key in found or not look.over(key)
    }
    episodes = dict(state.episodes)
    for key, each in found.items():
        if key in open_now:
            before = episodes[open_now[key]]
            # `since` stays: some looks can only say "now".
            episodes[open_now[key]] = replace(
                before, problem=replace(each, since=before.problem.since)
            )
            continue
        first = min(waiting.get(key, now), each.since)
        if now - first >= LASTING.get(each.kind, timedelta(0)):
            waiting.pop(key, None)
            episodes[_identity(key, now)] = Episode(replace(each, since=first), now)
        else:
            waiting.setdefault(key, now)
    for key, name in open_now.items():
        if key not in found and look.over(key):
            episodes[name] = replace(episodes[name], healed=now)
    return replace(state, at=now, episodes=episodes, waiting=waiting, retraining=retraining)


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
    """Whether two states differ in more than the words of problems that go on."""
    return _bones(one) != _bones(other)


def _bones(state: State) -> object:
    episodes = {
        name: (ep.healed, ep.told, ep.problem.severity, ep.problem.owner)
        for name, ep in state.episodes.items()
    }
    return episodes, state.waiting, state.claims, state.troubles, state.retraining


def _identity(key: str, now: datetime) -> str:
    return f"{key}@{now.isoformat()}"


def _requested(
    before: Mapping[str, Retraining], drifting: Iterable[Drifting], models: Collection[Model]
) -> dict[str, Retraining]:
    """Return the requests, with one more per feature set and episode of drift.

    An episode is the same as long as it shares a day with the one that the request was made for,
    wherever reruns move its first day; features of one set that drift on the same days are one.
    """
    requests = dict(before)
    for each in drifting:
        for model in models:
            if each.feature not in model.features or not model.has_spine:
                continue
            same = _same_episode(requests, model.name, each)
            if same is not None:
                known = requests[same]
                if each.feature not in known.features:
                    requests[same] = replace(known, features=(*known.features, each.feature))
                continue
            view = each.feature.partition(":")[0]
            name = request_name(model.name, each.days[0])
            requests[name] = Retraining(
                model.name, (each.feature,), view, each.days, like=model.kept
            )
    return dict(list(requests.items())[-_REMEMBERED:])


def request_name(feature_set: str, first_day: str) -> str:
    """Return what a request is called: the feature set, `drift`, and the episode's first day."""
    end = f"_drift_{first_day.replace('-', '')}"
    room = LONGEST_NAME - len(end)
    if len(feature_set) <= room:
        return f"{feature_set}{end}"
    told_apart = hashlib.sha256(feature_set.encode()).hexdigest()[:6]
    return f"{feature_set[: room - 7]}_{told_apart}{end}"


def _same_episode(
    requests: Mapping[str, Retraining], feature_set: str, drifting: Drifting
) -> str | None:
    for name, known in requests.items():
        if known.feature_set == feature_set and set(known.days) & set(drifting.days):
            return name
    return None


def _with_requests(
    found: Problem,
    look: Look,
    models: Collection[Model],
    requests: Mapping[str, Retraining],
) -> Problem:
    """Return the problem; one of drift says which training sets were requested because of it."""
    drifting = next((each for each in look.drifting if each.key == found.key), None)
    if drifting is None:
        return found
    using = [model for model in models if drifting.feature in model.features]
    names = [
        name
        for model in using
        if (name := _same_episode(requests, model.name, drifting)) is not None
    ]
    said = f" Requested to train again: {', '.join(names)}." if names else ""
    mixed = [model.name for model in using if not model.has_spine]
    if mixed:
        said += (
            f" No training set was requested for {', '.join(mixed)}: it joins several entities and "
            "no set of it is kept, so write a request with a spine of your own."
        )
    details = {**found.details, "training_sets": ", ".join(names)} if names else found.details
    return replace(found, sentence=f"{found.sentence}{said}", details=details)
