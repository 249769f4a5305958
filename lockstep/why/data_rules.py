"""Rules about the data: why Delta says what it says. Pure."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from lockstep.time import SNAPSHOT_DAY, span
from lockstep.why.facts import Facts, Made
from lockstep.why.found import Found


def contract_changed(facts: Facts) -> Found | None:
    """The table was built by another contract than the one declared now."""
    if facts.contract_changed is None:
        return None
    return Found(
        "schema change",
        f"The contract of {facts.view} is another one than its table was built by, so no day can "
        "be computed and nothing new is served.",
        [facts.contract_changed],
        f"lockstep materialize {facts.view} --rebuild",
    )


def times_shifted(facts: Facts) -> Found | None:
    """Event times of a source are off by a constant in the days that count."""
    shifted = facts.upstream.shifted
    if not shifted:
        return None
    first = shifted[0]
    names = " ".join(dict.fromkeys(each.source for each in shifted))
    days = {day for each in shifted for day in each.days}
    caught = [f"The audit of {q.view} caught {q.day}: {q.reason}" for q in facts.quarantined[:1]]
    return Found(
        "zone shift",
        f"{first.sentence} Days that count here: {span(first.days)}.",
        [each.sentence for each in shifted[1:]] + caught,
        _materialize(facts, [*names.split()], days),
        f"Have {first.source} delivered again with the right instants, or correct its time_zone=.",
    )


def file_refused(facts: Facts) -> Found | None:
    """A landed file breaks its source's schema and holds back days that count."""
    if not facts.upstream.held:
        return None
    held = min(facts.upstream.held, key=lambda each: not each.columns)
    days = span(held.days) or "every day that is not committed"
    return Found(
        "schema change" if held.columns else "quarantined",
        f"A file of {held.source} {'has other columns than declared' if held.columns else ''}"
        f"{'' if held.columns else 'is not usable'} and holds back {days}.",
        [held.reason],
        f"lockstep quarantine list {held.source}",
        "Have the file delivered again as declared, or release it: its rows stay out.",
    )


def frame_quarantined(facts: Facts) -> Found | None:
    """What was computed of the day, or of a newer one, failed its audit."""
    if not facts.quarantined:
        return None
    item = facts.quarantined[0]
    kept = f"{facts.offline.day} is served on" if facts.offline.day else "nothing is served"
    return Found(
        "quarantined",
        f"{item.view} of {item.day} failed its audit and is in quarantine; {kept}.",
        [item.reason, f"Found at {item.found_at.isoformat(timespec='seconds')}."],
        f"lockstep quarantine show {item.view} {item.item}",
    )


def data_late(facts: Facts) -> Found | None:
    """Data has not arrived, or arrived after the day had been computed from what was there."""
    up = facts.upstream
    if up.not_landed:
        name, days = _newest(up.not_landed)
        return Found(
            "late data",
            f"{_nothing_of(facts, name, days)}, so {facts.view} could not be computed past "
            f"{facts.newest or 'its start'}.",
            [f"Not committed: {span(facts.missing)}."],
            _materialize(facts, [name], days),
            f"Wait for {name}, or ask its owner.",
        )
    if up.arrived:
        name, days = _newest(up.arrived)
        return Found(
            "late data",
            f"Files of {_dated(name, days)} landed after it had been ingested; they have rows of "
            "this entity, which are not in its value.",
            [],
            _materialize(facts, [name], days),
        )
    made = next((each for each in facts.made if each.inputs_matter), None)
    if made is not None:
        name, days = _newest(made.restated)
        told = f"{made.day} was computed from {made.inputs.get(name) or 'nothing'} of {name}."
        return Found(
            "late data",
            f"{_dated(name, days)} was restated after {facts.view} of {made.day} had been computed "
            "from it, and the day was not computed again.",
            [told, *_computed_anew(made)],
            f"lockstep materialize {facts.view} --days {made.day}",
        )
    if up.restated:
        name, days = _newest(up.restated)
        return Found(
            "late data",
            f"{name}, which {facts.view} reads, has not been computed again for {span(days)} since "
            "its own inputs were restated.",
            [],
            _materialize(facts, [name], days),
        )
    return _known_later(facts, other_code=False)


def code_changed(facts: Facts) -> Found | None:
    """Another version of the code than the declared one computed the value."""
    made = next((each for each in facts.made if each.code_matters), None)
    if made is None:
        return _known_later(facts, other_code=True)
    return Found(
        "code changed",
        f"{facts.view} of {made.day} was computed by code {made.code_version or 'unknown'}; "
        f"declared is {made.declared}, and the day was not computed again.",
        _computed_anew(made),
        f"lockstep materialize {facts.view} --days {made.day}",
    )


def never_computed(facts: Facts) -> Found | None:
    """Days that should be there were not computed, though nothing stands in the way."""
    if not facts.missing:
        return None
    up = facts.upstream
    free = not (facts.quarantined or up.held or up.not_landed)
    first = (
        f"{facts.view} was never computed."
        if not facts.days
        else f"{facts.view} of {span(facts.missing)} was not computed"
        + (" by then." if facts.past else ", and nothing stands in the way." if free else ".")
    )
    landed = [
        f"{_dated(name, days)} has landed and is not ingested."
        for name, days in facts.upstream.not_ingested.items()
    ]
    days = {*facts.missing, *(d for each in facts.upstream.not_ingested.values() for d in each)}
    return Found("never computed", first, landed, _materialize(facts, [], days))


def outlived(facts: Facts) -> Found | None:
    """The entity's newest row is older than its ttl."""
    cell, ttl = facts.offline, facts.ttl
    if cell.status != "expired" or cell.event_timestamp is None or ttl is None:
        return None
    until = cell.event_timestamp + ttl
    return Found(
        "expired",
        f"The entity's newest row is of {cell.day}, and was valid until "
        f"{until.isoformat(timespec='seconds')} (ttl {_hours(ttl.total_seconds())}).",
        [f"{facts.view} is committed up to {facts.newest}; no later day has a row of the entity."],
    )


def as_it_should_be(facts: Facts) -> Found:
    """Nothing is wrong: why the value is what it is."""
    cell = facts.offline
    if not cell.there:
        return Found(
            "as it should be",
            f"No committed day of {facts.view} has a row of this entity, so there is no value.",
            [f"{facts.days} days are committed, up to {facts.newest}."],
        )
    made = next((each for each in facts.made if each.day == cell.day), None)
    words = f"It is the value of {cell.day}, revision {cell.revision}"
    if facts.newest is not None and cell.day is not None and cell.day < facts.newest:
        words += f"; the days after it, up to {facts.newest}, have no row of the entity"
    if cell.status == "null":
        words += ". The view computed null"
    warned = _warned(made)
    if warned:
        words = f"As it should be by its code and inputs, but the audit warned: {warned[0]} {words}"
    evidence = [f"Its audit warned: {message}" for message in warned[1:]]
    since = facts.since
    if since is not None and since.differs and since.known_at is not None:
        later = since.known_at.isoformat(timespec="seconds")
        evidence.append(f"{since.cell.day} was not due then; it is known since {later}.")
    if made is not None and made.revision > 1:
        known_at = made.known_at.isoformat(timespec="seconds")
        evidence.append(f"The day was corrected; this revision is known since {known_at}.")
    if made is not None and made.by_other_code and made.recomputed.by_same_inputs:
        evidence.append("Other code computed it; the code of today gives the same value.")
    if made is not None and made.restated and made.recomputed.by_todays_inputs:
        evidence.append("Inputs were restated since; they give the same value.")
    if made is not None and made.outcome == "released":
        evidence.append("A person released it after a check had failed.")
    return Found("as it should be", f"{words}.", evidence)


def _warned(made: Made | None) -> list[str]:
    """What the audit of the day said against it and let through, a sentence each."""
    failed = [v for v in made.verdicts if not v["passed"] and not v.get("released")] if made else []
    return [f"{str(verdict['message']).rstrip('.')}." for verdict in failed]


def _computed_anew(made: Made) -> list[str]:
    if made.recomputed.problem:
        return [f"It could not be computed anew for comparison: {made.recomputed.problem}"]
    if {made.recomputed.by_same_inputs, made.recomputed.by_todays_inputs} & {True, False}:
        return ["Computed anew, the value is another one."]
    return []


def _known_later(facts: Facts, *, other_code: bool) -> Found | None:
    """A past answer that a later revision replaced, by other code or from other inputs."""
    since = facts.since
    if since is None or not (since.differs and since.corrected) or since.other_code != other_code:
        return None
    at = f" at {since.known_at.isoformat(timespec='seconds')}" if since.known_at else ""
    inputs = [f"Restated: {name} of {span(days)}." for name, days in since.restated.items()]
    if other_code:
        return Found(
            "code changed",
            f"{since.cell.day} was computed again by other code and certified{at}, later than "
            "the asked instant.",
            inputs,
        )
    what = f"{since.cell.day} was corrected{at}, later than the asked instant"
    return Found("late data", f"{what}: what could be answered then lacks that.", inputs)


def _dated(name: str, days: Sequence[date]) -> str:
    """Name a source and its days; a snapshot has none."""
    return name if list(days) == [SNAPSHOT_DAY] else f"{name} of {span(days)}"


def _nothing_of(facts: Facts, name: str, days: Sequence[date]) -> str:
    if facts.past:
        return f"{_dated(name, days)} was not there yet"
    return f"Nothing of {_dated(name, days)} has landed"


def _newest(days: Mapping[str, Sequence[date]]) -> tuple[str, Sequence[date]]:
    return max(days.items(), key=lambda item: (max(item[1]), item[0]))


def _materialize(facts: Facts, names: Sequence[str], days: Collection[date]) -> str:
    """The command that builds the days, from the first one that changed to the newest."""
    wanted = list(dict.fromkeys([*names, *facts.upstream.incomplete, facts.view]))
    dated = [day for day in days if day != SNAPSHOT_DAY]
    last = max([*dated, *facts.missing, *(made.day for made in facts.made)], default=None)
    reach = f"{min(dated)}..{last}" if dated and min(dated) != last else f"{last}"
    return f"lockstep materialize {' '.join(wanted)} --days {reach}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} h"
