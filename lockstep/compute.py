"""One day of a view from pinned inputs: windows cut, function called, closing rows added.

The only implementation: daily batch, backfill, preview and repair all call `compute_day`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import polars as pl

from lockstep.errors import IncompleteWindowError, InputError
from lockstep.hashing import canonical
from lockstep.overflow import Overflow, overflows
from lockstep.reader import Reader
from lockstep.sources import Input, Readable, Snapshot, Source
from lockstep.time import as_of, encode_revisions, span
from lockstep.view import FeatureView


@dataclass(frozen=True)
class Computed:
    """One computed day, audited by nobody yet.

    Attributes:
        frame: Keys, event_timestamp, features; one row per entity, sorted by key.
        inputs: Parameter → the days read and their revisions, as runs.
        data_through: Event time up to which the inputs have data (UTC).
        closed: Number of closing rows in the frame.
        wrapped: Features that a wrapped sum of whole numbers made wrong.
    """

    day: date
    frame: pl.DataFrame
    inputs: Mapping[str, str]
    data_through: datetime
    closed: int
    wrapped: Sequence[Overflow] = ()


def require_complete(view: FeatureView, day: date, reader: Reader) -> None:
    """Raise IncompleteWindowError if a day of a window is missing, held, or before the start."""
    if day < view.start:
        raise IncompleteWindowError(
            f"{view.name} of {day} reaches before its sources begin.",
            expected=f"{view.start} or later",
            fix="Ask for later days, or declare partial_windows=True.",
            effect="The day was skipped.",
        )
    for item in view.inputs:
        needed = [d for d in _window(item, day, reader) if d >= item.of.start]
        held = reader.held(item.of)
        missing = [d for d in needed if d not in reader.head(item.of).days or d in held]
        if missing:
            raise _incomplete(view, day, item, missing, held)


def _window(item: Input, day: date, reader: Reader) -> list[date]:
    """Return the days of a window; the latest row of a view is sought from its first day on."""
    if item.reach != "latest" or isinstance(item.of, Snapshot):
        return item.days_read(day)
    return item.days_read(day, live=min(reader.head(item.of).days, default=day))


def _incomplete(
    view: FeatureView, day: date, item: Input, missing: list[date], held: Mapping[date, str]
) -> IncompleteWindowError:
    what = "it" if isinstance(item.of, Snapshot) else span(missing)
    reasons = sorted({held[d] for d in missing if d in held})
    because = f" Held back: {'; '.join(reasons)}" if reasons else ""
    return IncompleteWindowError(
        f"{view.name} of {day} needs {item.of.name}, and {what} is not committed.{because}",
        fix=f"Materialize {item.of.name} first; the day is built when the gap closes.",
        effect="The day was skipped.",
    )


def compute_day(view: FeatureView, day: date, reader: Reader, zone: ZoneInfo) -> Computed:
    """Return the day's frame, computed by Polars' in-memory engine from committed inputs.

    Raises:
        IncompleteWindowError: A day of a window is missing.
        InputError: The function returned other columns or types than its contract promises.
    """
    require_complete(view, day, reader)
    instant = as_of(day, zone)
    frames = {item.name: _cut(item, day, instant, reader) for item in view.inputs}
    arguments: dict[str, object] = {name: frame.lazy() for name, frame in frames.items()}
    if view.wants_as_of:
        arguments["as_of"] = instant
    result = view.function(**arguments)
    # Streaming float sums differ from run to run, so the engine is named.
    rows = result.collect(engine="in-memory")
    _require_shape(view, rows)
    rows = rows.select(*view.contract.keys, *view.contract.features)
    closing = _closing_rows(view, day, rows, reader)
    frame = (
        pl.concat([rows, closing])
        .select(
            *view.contract.keys,
            pl.lit(instant, dtype=pl.Datetime("us", "UTC")).alias("event_timestamp"),
            *view.contract.features,
        )
        .sort(view.contract.keys, nulls_last=True)
    )
    return Computed(
        day=day,
        frame=canonical(frame).rechunk(),
        inputs=inputs_of(view, day, reader),
        data_through=_data_through(view, instant, frames, reader, day),
        closed=closing.height,
        wrapped=overflows(view, arguments, result, rows),
    )


def inputs_of(view: FeatureView, day: date, reader: Reader) -> dict[str, str]:
    """Return parameter → (day → revision, as runs) for what the day would read now."""
    read = {item.name: _window(item, day, reader) for item in view.inputs}
    for item, left in left_days(view, day):
        read[item.name] = [left, *read[item.name]]
    heads = {item.name: reader.head(item.of).days for item in view.inputs}
    return {
        name: encode_revisions({d: heads[name][d].revision for d in days if d in heads[name]})
        for name, days in read.items()
    }


def _cut(item: Input, day: date, instant: datetime, reader: Reader) -> pl.DataFrame:
    """Return exactly the rows that the window of the day contains, in the input's total order."""
    days = [d for d in _window(item, day, reader) if d in reader.head(item.of).days]
    frame = reader.rows(item.of, days)
    if isinstance(item.of, Source):
        return frame.drop("day").with_columns(pl.col("event_time").set_sorted())
    if isinstance(item.of, Snapshot):
        return _latest_snapshot(item.of, frame.drop("day"), instant)
    if item.reach == "latest":
        return _latest_rows(item, frame.drop("day"), instant)
    return frame if item.reach == "trailing" else frame.drop("day")


def _latest_snapshot(snapshot: Snapshot, frame: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    if snapshot.valid_from == "always":
        return frame
    known = frame.filter(pl.col(snapshot.valid_from) <= instant)
    return known.unique(snapshot.key, keep="last", maintain_order=True)


def _latest_rows(item: Input, frame: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    valid = pl.col("event_timestamp") <= instant
    if item.ttl is not None:
        valid &= instant <= pl.col("event_timestamp") + item.ttl
    keys = item.of.contract.keys if isinstance(item.of, FeatureView) else []
    return (
        frame.filter(valid)
        .sort(*keys, "event_timestamp")
        .unique(keys, keep="last", maintain_order=True)
    )


def left_days(view: FeatureView, day: date) -> Iterator[tuple[Input, date]]:
    """Yield the inputs whose leavers get closing rows, with the day that just left the window."""
    if view.contract.when_absent != "empty":
        return
    for item in view.inputs:
        left = item.left_day(day)
        if left is not None and set(view.contract.keys) <= item.of.columns.keys():
            yield item, left


def _closing_rows(view: FeatureView, day: date, rows: pl.DataFrame, reader: Reader) -> pl.DataFrame:
    """Return a row of `empty=` values per entity that just left the window and is not in `rows`.

    A day that left the window and is not committed closes nobody: the day before can't have been
    built without it, so nothing of it is served.
    """
    keys, contract = view.contract.keys, view.contract
    gone = [
        reader.rows(item.of, [left]).select(
            pl.col(key).cast(dtype) for key, dtype in contract.entity.key_types.items()
        )
        for item, left in left_days(view, day)
        if left in reader.head(item.of).days
    ]
    if not gone:
        return rows.clear()
    absent = pl.concat(gone).drop_nulls().unique().join(rows, on=keys, how="anti")
    return absent.select(
        *keys,
        *(
            pl.lit(feature.empty, dtype=feature.type).alias(name)
            for name, feature in contract.features.items()
        ),
    )


def _require_shape(view: FeatureView, rows: pl.DataFrame) -> None:
    promised = view.contract.entity.key_types | view.contract.feature_types
    returned = dict(rows.schema)
    problems = [f"no column {name!r}" for name in promised if name not in returned]
    problems += [f"an undeclared column {name!r}" for name in returned if name not in promised]
    problems += [
        f"{name!r} as {returned[name]} instead of {dtype}"
        for name, dtype in promised.items()
        if name in returned and returned[name] != dtype
    ]
    if problems:
        raise InputError(
            f"Feature view {view.name!r} returned {'; '.join(problems)}.",
            expected=", ".join(f"{name}: {dtype}" for name, dtype in promised.items()),
            fix=f"Correct the function in {view.file.name}, or its contract.",
            effect="Nothing was written.",
        )


def _data_through(
    view: FeatureView,
    instant: datetime,
    frames: Mapping[str, pl.DataFrame],
    reader: Reader,
    day: date,
) -> datetime:
    """Return the event time up to which every input has data: empty runs can't make it newer."""
    reached: list[datetime] = [instant]
    for item in view.inputs:
        if isinstance(item.of, Source) and not item.of.may_be_empty:
            newest = frames[item.name]["event_time"].max()
            reached += [newest] if isinstance(newest, datetime) else []
        if isinstance(item.of, FeatureView):
            record = reader.head(item.of).days.get(day)
            reached += [datetime.fromisoformat(record.note["data_through"])] if record else []
    return min(reached)


def load_inputs(view: FeatureView, days: Collection[date], reader: Reader) -> None:
    """Read what computing `days` needs, one scan per table, and forget what it does not."""
    wanted: dict[Readable, set[date]] = {}
    for item in view.inputs:
        wanted.setdefault(item.of, set()).update(
            d for day in days for d in _window(item, day, reader)
        )
    for day in days:
        for item, left in left_days(view, day):
            wanted[item.of].add(left)
    for of, needed in wanted.items():
        reader.keep(of, needed)
        reader.load(of, sorted(needed))
