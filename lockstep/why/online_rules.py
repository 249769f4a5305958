"""Rules about the way to Redis: they speak only where it holds another row than it must. Pure."""

from datetime import date

from lockstep.time import span
from lockstep.why.facts import Facts, Online
from lockstep.why.found import Found


def stored_schema(facts: Facts) -> Found | None:
    """The stored row was written under other columns than the contract's."""
    online = _differing(facts)
    if online is None or not online.other_schema:
        return None
    return Found(
        "schema change",
        "Redis holds a row of the columns that the contract had before.",
        [f"The row was pushed from version {online.cell.version}.", *_sealing(facts, online)],
        f"lockstep push {facts.view}",
    )


def bucket_lost(facts: Facts) -> Found | None:
    """The bucket has lost its seal, and so perhaps its rows."""
    online = _differing(facts)
    if online is None:
        return None
    if online.claim == "lost":
        what = (
            f"Bucket {online.bucket} of {online.buckets}, in which the entity is, has lost its "
            "seal, and others have theirs: Redis dropped it."
        )
    elif _ragged(facts, online) and online.lost:
        what = (
            f"{online.lost} of {online.buckets} buckets have lost their seals, so nobody knows "
            "whether a row that is not there should be."
        )
    else:
        return None
    return Found(
        "evicted",
        what,
        _evictions(online),
        f"lockstep reconcile {facts.view}",
        _against_eviction(online),
    )


def push_interrupted(facts: Facts) -> Found | None:
    """A push or a rebuild ended before it had sealed every bucket."""
    online = _differing(facts)
    if online is None:
        return None
    wiped = online.claim == "being wiped"
    unsettled = _unsettled(facts, online)
    ragged = _ragged(facts, online)
    if not wiped and not ragged and not (unsettled and (online.further or online.begun)):
        return None
    if wiped:
        what = "A rebuild removed rows of it online and has not ended."
    elif ragged:
        what = (
            f"Other buckets of {facts.view} are not sealed, so nobody knows whether a row that is "
            "not there should be."
        )
    elif online.further:
        what = (
            f"A push of {span(unsettled)} reached {online.further} of {online.buckets} buckets and "
            f"not bucket {online.bucket}, in which the entity is."
        )
    else:
        what = f"A push of {span(unsettled)} wrote rows and ended before it had sealed a bucket."
    return Found("partial push", what, _sealing(facts, online), f"lockstep push {facts.view}")


def correction_waits(facts: Facts) -> Found | None:
    """A day that Redis has, or has newer ones than, was restated and not pushed."""
    online = _differing(facts)
    waiting = [] if online is None else _unsettled(facts, online)
    if online is None or not waiting or not online.sealed:
        return None
    newest = max(online.sealed)
    corrected = [day for day in waiting if day in online.sealed or day < newest]
    if not corrected:
        return None
    day = max(corrected)
    had = online.sealed.get(day)
    was = f"Redis has revision {had} of it" if had else "Redis has newer days, but not this one"
    now = facts.committed.get(day)
    return Found(
        "correction not pushed",
        f"{day} was corrected in Delta"
        + (f", to revision {now}, and {was}." if now else f" (it is not committed), and {was}."),
        _sealing(facts, online),
        f"lockstep push {facts.view}",
    )


def redis_behind(facts: Facts) -> Found | None:
    """Committed days were never pushed, or Redis has lost everything of the view."""
    online = _differing(facts)
    if online is None:
        return None
    waiting = _unsettled(facts, online)
    if not waiting:
        marked = online.cell.status == "error" and online.unready is not None
        # It is marked because rows are gone: that is the cause, if this row is one of them.
        if not marked or row_gone(facts) is not None:
            return None
        what = f"{facts.view} is marked as not ready online: {online.unready}"
        return Found("Redis behind", what, [], f"lockstep reconcile {facts.view}")
    if online.sealed:
        what = f"{span(waiting)} is committed and was not pushed; Redis ends with "
        what += f"{max(online.sealed)}."
    elif online.sealed_before:
        what = f"Redis has lost {facts.view}: it was sealed before, and no bucket is now."
    elif online.claim == "another table":
        what = f"Redis holds {facts.view} of another Delta table than the committed one."
    else:
        what = f"{facts.view} is committed and was never pushed."
    return Found("Redis behind", what, _sealing(facts, online), f"lockstep push {facts.view}")


def row_gone(facts: Facts) -> Found | None:
    """The seal says that the row is there, and it is not."""
    online = _differing(facts)
    if online is None or online.damaged or online.cell.event_timestamp is not None:
        return None
    if _unsettled(facts, online):
        return None
    if facts.offline.status in {"missing", "expired"}:
        return None
    return Found(
        "evicted",
        f"The row of {facts.offline.day} was pushed and sealed, and is gone from Redis.",
        _evictions(online) + _sealing(facts, online),
        f"lockstep reconcile {facts.view}",
        _against_eviction(online),
    )


def row_changed(facts: Facts) -> Found | None:
    """Under an intact seal lies another row than the one that was pushed."""
    online = _differing(facts)
    if online is None or (online.cell.event_timestamp is None and not online.damaged):
        return None
    if online.other_schema or _unsettled(facts, online):
        return None
    what = (
        "What Redis holds under an intact seal is no row that this release can read: something "
        "else wrote it, or another release did."
        if online.damaged
        else "Redis holds another row than the one that was pushed and sealed: something else "
        "wrote it, or an old copy was restored."
    )
    return Found(
        "overwritten",
        what,
        _sealing(facts, online),
        f"lockstep push {facts.view} --rebuild",
        "Find out who else may write to this Redis.",
    )


def redis_down(facts: Facts) -> Found | None:
    """Redis does not answer, so readers get no value."""
    if facts.online is None or facts.online.problem is None:
        return None
    return Found(
        "Redis down",
        "Redis does not answer, so a reader gets no value; offline is as it should be.",
        [facts.online.problem],
        "lockstep up" if facts.online.stopped else "lockstep doctor",
    )


def _differing(facts: Facts) -> Online | None:
    """What Redis says, if it answers and does not hold what it should."""
    online = facts.online
    if online is None or online.problem is not None or online.equal:
        return None
    # Nothing is committed, or what is committed is of other columns: there is nothing to compare.
    return None if facts.newest is None or facts.contract_changed is not None else online


def _ragged(facts: Facts, online: Online) -> bool:
    """Whether no row is expected, and a reader is told "error" because of other buckets."""
    if online.cell.status != "error" or online.damaged or online.cell.there:
        return False
    expected = facts.offline.status not in {"missing", "expired"}
    return not expected and online.unready is None and not _unsettled(facts, online)


def _unsettled(facts: Facts, online: Online) -> list[date]:
    """Days of the two rows, or the newest one, that the bucket has not sealed as committed."""
    days = {day for day in (facts.offline.day, online.cell.day) if day is not None}
    if not days and facts.newest is not None:
        days = {facts.newest}
    return sorted(day for day in days if online.sealed.get(day) != facts.committed.get(day))


def _sealing(facts: Facts, online: Online) -> list[str]:
    version = "no version" if online.seal_version is None else f"version {online.seal_version}"
    days = max(online.sealed, default=None)
    told = f"Bucket {online.bucket} is sealed at {version}" + (f", up to {days}." if days else ".")
    return [told, f"Delta ends with {facts.newest}."]


def _evictions(online: Online) -> list[str]:
    count = online.evicted_keys
    if not count:
        return ["The server has evicted no key since it started: somebody deleted it."]
    return [f"The server has evicted {count} keys since it started (policy {online.policy})."]


def _against_eviction(online: Online) -> str:
    if online.policy == "noeviction" and not online.evicted_keys:
        return "Find out who deletes keys of this Redis."
    return "Set maxmemory-policy noeviction and give the server more memory."
