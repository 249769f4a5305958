"""What came of one day, told by ingestion and materialization alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, TypeAlias

import polars as pl

from lockstep.drift import Drift
from lockstep.profile import ColumnProfile
from lockstep.quality import CheckName, Verdict

Status: TypeAlias = Literal["committed", "unchanged", "quarantined", "skipped", "refused"]


@dataclass(frozen=True)
class DayOutcome:
    """One day of one source, snapshot or view after a run.

    Attributes:
        status: "committed" (new revision), "unchanged" (same content, same revision),
            "quarantined" (a blocking check failed), "skipped" (an input is missing), or
            "refused" (the landed data is not usable).
        message: One sentence for people; empty if all went well.
        frame: The day's rows, for previews; keys, event_timestamp, features.
        counts: Numbers for the catalog, e.g. duplicates dropped.
        failing_rows: Failed check → at most 20 of the rows for which it failed, not masked.
        drift: Feature → how far it is from its reference, bin by bin.
    """

    name: str
    day: date
    status: Status
    message: str = ""
    revision: int = 0
    version: int = -1
    content_hash: str = ""
    code_version: str = ""
    rows: int = 0
    verdicts: Sequence[Verdict] = ()
    profile: Mapping[str, ColumnProfile] = field(default_factory=dict)
    frame: pl.DataFrame | None = field(default=None, repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)
    failing_rows: Mapping[CheckName, pl.DataFrame] = field(default_factory=dict, repr=False)
    drift: Mapping[str, Drift] = field(default_factory=dict, repr=False)

    @property
    def certified(self) -> bool:
        """Whether the day's content is committed now."""
        return self.status in ("committed", "unchanged")
