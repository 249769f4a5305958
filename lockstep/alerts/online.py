"""Problems that Redis shows: views that are marked as not ready, and days that nobody pushed.

No row is compared here. Marks are set within seconds by who watches Redis (`lockstep.reconcile`),
seals say what was pushed, and the parity check says the rest.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Final

from lockstep.alerts.problem import Look, Problem, problem
from lockstep.errors import LockstepError, OnlineError
from lockstep.parity import only_wait, unsealed_days
from lockstep.store import Store
from lockstep.stores.redis import OnlineStore
from lockstep.time import span
from lockstep.unready import Mark
from lockstep.view import FeatureView

SEALS: Final = "parity:seals"
_LINE: Final = 80
_STORE: Final = "not_ready:online store"


def look_at_online(store: Store, owner: str) -> Look:
    """Return the problems that the online store shows.

    Args:
        owner: Who answers for the online store itself.
    """
    now = store.now()
    built = [view for view in store.views.values() if store.lake.table(view).exists()]
    if not built:
        return Look([], frozenset({"not_ready", SEALS}))
    try:
        online = store.online_store
        marks = online.notes("unready")
    except OnlineError as error:
        down = problem(
            _STORE,
            "online store",
            "The online store does not answer. Services answer with what their fallback says.",
            owner=owner,
            since=now,
            fix="lockstep doctor",
        )
        return Look([down], frozenset({_STORE}), {"not_ready": str(error), SEALS: str(error)})
    found = [_not_ready(view, marks[view.name], now) for view in built if view.name in marks]
    unknown = {}
    for view in built:
        try:
            found += _unpushed(store, online, view, now)
        except LockstepError as error:
            unknown[f"{SEALS}:{view.name}"] = str(error)
    return Look(found, frozenset({"not_ready", SEALS}), unknown)


def _not_ready(view: FeatureView, mark: str, now: datetime) -> Problem:
    said = Mark.of(mark, now)
    return problem(
        f"not_ready:{view.name}",
        view.name,
        f"{view.name} is not ready: {said.reason} Until it is rebuilt, a cell of it without a row "
        "is an error, not missing.",
        owner=view.contract.owner,
        since=said.since,
        fix=f"lockstep reconcile {view.name}",
    )


def _unpushed(
    store: Store, online: OnlineStore, view: FeatureView, now: datetime
) -> Iterator[Problem]:
    entity = view.contract.entity
    seals = online.seals(entity.name, view.name, entity.buckets)
    empty = sum(seal is None for seal in seals.values())
    if 0 < empty < len(seals):
        # From now on: when they were lost nobody knows, and a push under way mends it by itself.
        yield problem(
            f"{SEALS}:{view.name}",
            view.name,
            f"{empty} of {len(seals)} buckets of {view.name} have no seal, and so perhaps lack "
            "rows.",
            owner=view.contract.owner,
            since=now,
            fix=f"lockstep reconcile {view.name}",
            details={"buckets_without_seal": str(empty)},
        )
        return
    unsealed = unsealed_days(store.lake, online, view, now)
    head = store.lake.table(view).head()
    behind = [day for day in unsealed if day in head.days]
    if behind and not only_wait(behind, head, store.project.zone, now):
        known = [head.days[day].known_at for day in behind]
        yield problem(
            f"{SEALS}:{view.name}",
            view.name,
            f"{len(behind)} committed days of {view.name} ({_short(behind)}) are not online; what "
            "was pushed before them is served.",
            owner=view.contract.owner,
            since=min(known),
            fix=f"lockstep push {view.name}",
            details={"unsealed_days": str(len(behind))},
        )


def _short(days: Sequence[date]) -> str:
    shown = span(days)
    return shown if len(shown) <= _LINE else f"{days[0]}..{days[-1]}"
