"""Redis against Delta: a lost, flushed, rolled back or evicted copy is noticed, marked, rebuilt.

    look      reads, and says what is wrong with which view
    mark      tells readers at once that those views are not ready
    repair    rebuilds one from Delta; only byte equality after it removes the mark

Every look judges the present state anew and acts on nothing it remembers alone, so that a look that
is lost, repeated or made by two processes at once costs time and no row.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final, Literal, TypeAlias

from lockstep.codec import RowCodec
from lockstep.errors import ConflictError, LockstepError, OnlineError
from lockstep.facts import corrected
from lockstep.judgement import Code, Sealed, Suspicion, judge
from lockstep.lake import Lake
from lockstep.last_look import Memory, Seen, Servers
from lockstep.parity import Parity, parity
from lockstep.push import Pushed, push
from lockstep.sampling import DEEP_LOSS, LOSS, compare, described, settled_days
from lockstep.stores.day_index import Head
from lockstep.stores.redis import OnlineStore
from lockstep.throttle import Throttle
from lockstep.time import as_of, instant_of, micros
from lockstep.unready import Mark
from lockstep.view import FeatureView

Repair: TypeAlias = Literal["rebuild", "push"]

REPAIRING: Final = timedelta(seconds=60)
"""How long a marked view may stay as it is, without a new seal, before it is a finding again."""

NO_TIME: Final = timedelta(0)
_ATTEMPTS: Final = 3
_UNREADABLE: Final = Suspicion("unreadable", "A seal is not one that this release can read.")


@dataclass(frozen=True)
class Finding:
    """What is wrong with one view online.

    Attributes:
        code: Which kind of fault, see `lockstep.judgement`.
        sentence: What was seen; it names no entity.
        since: When it was first seen, by whatever process; one incident keeps it.
    """

    view: str
    code: Code
    sentence: str
    since: datetime

    @property
    def repair(self) -> Repair:
        """What puts it right: a push if days are only not there yet, else a rebuild."""
        return "push" if self.code == "behind" else "rebuild"


@dataclass(frozen=True)
class Look:
    """One look at the online store.

    Attributes:
        at: When it began.
        views: The views that were looked at.
        findings: What is wrong, a view at most once.
        notes: Sentences about what is no fault of a view, or could not be looked at.
        facts: View → what should be said of it online and is not; `mark` says it.
    """

    at: datetime
    views: Sequence[str]
    findings: Sequence[Finding]
    notes: Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Repaired:
    """What came of one repair.

    Attributes:
        pushed: What was pushed; None if nothing had to be, or it failed.
        parity: What was compared afterwards; None if it did not come to that.
        error: Why it failed; empty if it did not.
    """

    finding: Finding
    pushed: Pushed | None
    parity: Parity | None
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether online equals offline again."""
        return self.parity is not None and self.parity.holds

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        return self.error or (self.parity.sentence if self.parity else "")


@dataclass(frozen=True)
class _Asked:
    """What is the same for every view of one look."""

    lake: Lake
    online: OnlineStore
    memory: Memory
    at: datetime
    patient: bool
    servers: Servers
    marks: Mapping[str, str]
    kept: Mapping[str, str]
    facts: dict[str, str]
    schemas: frozenset[bytes]


def look(
    lake: Lake,
    online: OnlineStore,
    views: Iterable[FeatureView],
    *,
    now: Callable[[], datetime],
    memory: Memory,
    patient: bool = True,
    enough: Callable[[], bool] = lambda: False,
) -> Look:
    """Compare the views online with what is committed, and remember what was seen.

    Views that were never built are left out.

    Args:
        memory: Of earlier looks; keep one per process.
        patient: Give another's push or wipe time to go on before it counts as a finding.
        enough: Asked before every view but the first: whether the others can wait.

    Raises:
        OnlineError: The online store does not answer.
        StoreError: What was seen cannot be kept.
    """
    memory.load()
    asked = _Asked(
        lake,
        online,
        memory,
        now(),
        patient,
        Servers.of(online.nodes().values()),
        online.notes("unready"),
        online.notes("facts"),
        {},
        frozenset(online.schemas()),
    )
    looked: list[str] = []
    findings: list[Finding] = []
    notes: list[str] = []
    for view in views:
        if looked and enough():
            break
        notes += _evicted(asked, view)
        try:
            found = _examined(asked, view)
        except OnlineError:
            raise
        except LockstepError as error:
            notes.append(f"{view.name} cannot be compared: {error}")
            continue
        looked.append(view.name)
        findings += [found] if found else []
    notes += [f"What is said online about {view} was lost or is old." for view in asked.facts]
    memory.save()
    return Look(asked.at, looked, findings, notes, asked.facts)


def mark(online: OnlineStore, seen: Look) -> Look:
    """Tell readers that the views found are not ready, and why; what is marked keeps its mark.

    Days that are only not pushed yet are no reason: what is served is right for its day. Facts that
    were lost are said again.

    Returns:
        The look; with a note more if the store takes no writes, so that nobody could be told.
    """
    wanted = [finding for finding in seen.findings if finding.repair == "rebuild"]
    try:
        marked = online.notes("unready") if wanted else {}
        for finding in wanted:
            if finding.view not in marked:
                why = Mark(finding.sentence, finding.since)
                online.note("unready", finding.view, why.text)
        for view, text in seen.facts.items():
            online.note("facts", view, text)
    except OnlineError as error:  # the repair may make room
        return replace(seen, notes=[*seen.notes, f"Readers could not be told: {error}"])
    return seen


def repair(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    finding: Finding,
    *,
    now: Callable[[], datetime],
    on_rows: Callable[[int], None] | None = None,
    throttle: Callable[[], Throttle] | None = None,
) -> Repaired:
    """Bring one view back to what is committed, and compare it; byte equality unmarks it.

    Every entity is compared, or a sample if there are more than the contract's `parity`. A sample
    alone removes no mark, for it may miss what another one saw: it has to be rebuilt before.

    Another repair or push of the same view at the same time is harmless. A failure is in the
    result: the mark stays, and the next look finds the view again.

    Args:
        throttle: Gives what paces a push, so that readers of other views do not notice; without
            it, it goes as fast as the server takes it.
    """
    pushed, rebuilt = None, False
    try:
        equal = parity(lake, online, view, now()) if finding.code == "marked" else None
        if equal is None or not equal.holds or equal.sampled is not None:
            pushed, rebuilt = _pushed(lake, online, view, finding, now, on_rows, throttle)
            equal = parity(lake, online, view, now())
        if equal.holds and (rebuilt or equal.sampled is None):
            online.note("unready", view.name, None)
    except LockstepError as error:
        return Repaired(finding, pushed, None, str(error))
    return Repaired(finding, pushed, equal)


def reconcile(
    lake: Lake,
    online: OnlineStore,
    views: Iterable[FeatureView],
    *,
    now: Callable[[], datetime],
    memory: Memory,
    patient: bool = True,
    on_rows: Callable[[int], None] | None = None,
    throttle: Callable[[], Throttle] | None = None,
) -> tuple[Look, list[Repaired]]:
    """Look, mark what is wrong as not ready, and repair it.

    Args:
        throttle: As `repair` takes it.

    Raises:
        OnlineError: The online store does not answer.
        StoreError: What was seen cannot be kept.
    """
    by_name = {view.name: view for view in views}
    seen = look(lake, online, by_name.values(), now=now, memory=memory, patient=patient)
    seen = mark(online, seen)
    return seen, [
        repair(
            lake,
            online,
            by_name[found.view],
            found,
            now=now,
            on_rows=on_rows,
            throttle=throttle,
        )
        for found in seen.findings
    ]


def _pushed(
    lake: Lake,
    online: OnlineStore,
    view: FeatureView,
    finding: Finding,
    now: Callable[[], datetime],
    on_rows: Callable[[int], None] | None,
    throttle: Callable[[], Throttle] | None,
) -> tuple[Pushed, bool]:
    """Return what was pushed, and whether everything was removed before."""

    def attempt(*, rebuild: bool) -> Pushed:
        pace = throttle() if throttle else None
        return push(lake, online, view, now=now, on_rows=on_rows, rebuild=rebuild, throttle=pace)

    rebuild = finding.repair == "rebuild"
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt(rebuild=rebuild), rebuild
        except ConflictError:
            continue  # somebody else repairs it too: what is sealed now counts
    return attempt(rebuild=False), False


def _examined(asked: _Asked, view: FeatureView) -> Finding | None:
    """What is wrong with one view; remembers what was seen of it."""
    sealed = _sealed(asked.online, view)
    head = asked.memory.head(asked.lake, view)
    if head is None:
        return None
    seen = before = asked.memory.seen(view.name)
    worst: Suspicion | None = _UNREADABLE
    if sealed is not None:
        worst = judge(sealed, head, _ended(asked, head), before)
        if worst is None or worst.code == "behind":
            rows, looked = _wrong_rows(asked, view, sealed, head, before)
            worst = rows or worst
            if not sealed.empty:
                version = min(seal.version for seal in sealed.there)
                seen = Seen(head.table_id, version, asked.servers if looked else before.servers)
    marked = asked.marks.get(view.name)
    mark = None if marked is None else Mark.of(marked)
    if mark and (worst is None or worst.code == "behind"):
        worst = Suspicion("marked", mark.reason)
    if worst is None:
        if sealed is not None and sealed.there:
            kept = asked.kept.get(view.name)
            if text := corrected(kept, asked.lake, view, head, sealed.seals, asked.at):
                asked.facts[view.name] = text
        asked.memory.remember(view.name, replace(seen, pending="", since_us=0))
        return None
    state = f"{worst.code} {head.version} {sealed.progress if sealed else ''}"
    first = instant_of(before.since_us) if before.pending == state else asked.at
    asked.memory.remember(view.name, replace(seen, pending=state, since_us=micros(first)))
    patience = max(worst.patience, REPAIRING if mark else NO_TIME)
    if asked.patient and asked.at - first < patience:
        return None
    since = mark.since if mark else first if worst.code == "behind" else asked.at
    return Finding(view.name, worst.code, worst.sentence, since)


def _evicted(asked: _Asked, view: FeatureView) -> list[str]:
    """A warning if the servers that were there at the last look have dropped keys since."""
    before = asked.memory.seen(view.name).servers
    count = asked.servers.evicted - before.evicted
    if before.who != asked.servers.who or count <= 0:
        return []
    cause = f"Since the last look at {view.name} the server has dropped {count} keys for lack of"
    return [f"{cause} memory. Set maxmemory-policy noeviction and give it more memory."]


def _sealed(online: OnlineStore, view: FeatureView) -> Sealed | None:
    """What Redis says of the view; None if a seal cannot be read.

    Raises:
        OnlineError: The online store does not answer.
    """
    entity = view.contract.entity
    where = (entity.name, view.name, entity.buckets)
    try:
        seals, claims = online.seals_and_claims(*where)
    except OnlineError:
        online.ping()
        return None
    return Sealed(seals, frozenset(claim for claim in claims.values() if claim))


def _ended(asked: _Asked, head: Head) -> dict[date, int]:
    zone = asked.lake.project.zone
    return {
        day: record.revision for day, record in head.days.items() if as_of(day, zone) <= asked.at
    }


def _wrong_rows(
    asked: _Asked, view: FeatureView, sealed: Sealed, head: Head, before: Seen
) -> tuple[Suspicion | None, bool]:
    """What is wrong with the rows under the seals, and whether they could be looked at."""
    deep = bool(before.servers.who) and before.servers != asked.servers
    loss = DEEP_LOSS if deep else LOSS
    sample = asked.memory.sample(asked.lake, view, head, asked.at, loss=loss)
    settled = settled_days(head, sealed.revisions)
    wrong = compare(asked.online, view, sample, settled)
    if wrong:
        # Once more: a row may be newer than the pinned version, and a push may have begun.
        again, newest = _sealed(asked.online, view), asked.memory.head(asked.lake, view)
        if again != sealed or newest is None:
            return None, False
        wrong = compare(asked.online, view, sample, settled, newest=newest.version, keys=wrong)
    if wrong:
        return Suspicion("rows", described(sample, wrong)), True
    known = RowCodec(view.contract.feature_types).fingerprint in asked.schemas
    if sample.expected and sealed.there and not known:
        return Suspicion("schema", "The schema that its rows are decoded by is gone."), True
    return None, True
