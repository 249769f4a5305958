"""What the days of a run are compared with: days committed before, and by the run itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from lockstep.compute import Computed
from lockstep.drift import REACH_DAYS
from lockstep.episodes import over_limit
from lockstep.lake import Lake
from lockstep.newcomers import Newcomers
from lockstep.profile import ColumnProfile, TrainedOn
from lockstep.quality import Audit, Earlier
from lockstep.time import trailing_days
from lockstep.view import FeatureView


@dataclass(frozen=True)
class References:
    """Profiles and verdicts of the days near those of a run; those of the run itself replace them.

    Attributes:
        trained: Feature → what it looked like in the newest training set that is kept.
        over: Day → the features whose verdict says that they were over their limit.
        hashes: Day → its content as it was committed when the run began.
        closed: Day → how many of its rows are closing rows.
    """

    profiles: dict[date, dict[str, ColumnProfile]]
    newcomers: Newcomers
    trained: Mapping[str, TrainedOn]
    over: dict[date, frozenset[str]]
    hashes: Mapping[date, str]
    closed: dict[date, int]

    @classmethod
    def of(cls, lake: Lake, view: FeatureView, days: Sequence[date]) -> "References":
        """Return what is committed and near the days."""
        table = lake.table(view)
        head = table.head_or_none() if days else None
        newcomers = Newcomers(view, table, head)
        if head is None:
            return cls({}, newcomers, {}, {}, {}, {})
        reach = trailing_days(min(days), REACH_DAYS + 1)[0]
        near = {d: record for d, record in head.days.items() if reach <= d <= max(days)}
        profiles = lake.profiles(view.name, {d: record.revision for d, record in near.items()})
        # Read once: a set that is kept meanwhile does not part the days of one run.
        trained = lake.training_reference(view.name)
        hashes = {d: record.content_hash for d, record in near.items()}
        closed = {d: record.note.get("closed", 0) for d, record in near.items()}
        return cls(profiles, newcomers, trained, over_limit(view.contract, near), hashes, closed)

    def earlier(self, computed: Computed) -> Earlier:
        """Return what a computed day is compared with."""
        day = computed.day
        before = trailing_days(day, REACH_DAYS + 1)[:-1]
        profiles = {d: self.profiles[d] for d in before if d in self.profiles}
        counts = self.newcomers.counts(day, computed.frame)
        closed = {**self.closed, day: computed.closed}
        return Earlier(day, profiles, self.trained, counts, self.over, closed)

    def passed(self, computed: Computed, audit: Audit, content_hash: str) -> None:
        """Take a day that this run commits: the days after it are compared with it."""
        day = computed.day
        self.profiles[day] = dict(audit.profile)
        self.closed[day] = computed.closed
        self.newcomers.passed(day, computed.frame)
        # Of a day whose content is there already the verdict stays as it was committed.
        if self.hashes.get(day) != content_hash:
            self.over[day] = frozenset(name for name, drift in audit.drift.items() if drift.over)
