"""What the UI shows of a view, and of each of its days."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl

from lockstep.layout import Receipt
from lockstep.lineage import column_lineage
from lockstep.outcome import DayOutcome
from lockstep.picture import data_uri, histogram_svg
from lockstep.push import Pushed
from lockstep.schema import UNSET, Feature
from lockstep.sources import Readable, Snapshot, Source
from lockstep.time import as_of, day_start, span
from lockstep.view import FeatureView

PREVIEW_ROWS: Final = 5
MASK: Final = "•••"
_HOUR: Final = timedelta(hours=1)
PICTURED_DAYS: Final = 7
"""Pictures are drawn for the last days of a range only: they are most of an event's size."""


def column_schema(of: Readable) -> dg.TableSchema:
    """Return the columns tab: types, descriptions, and what is promised of each column."""
    columns = _view_columns(of) if isinstance(of, FeatureView) else _bronze_columns(of)
    return dg.TableSchema(list(columns))


def _view_columns(view: FeatureView) -> Iterator[dg.TableColumn]:
    entity, keys = view.contract.entity, view.contract.keys
    for name, dtype in view.columns.items():
        if feature := view.contract.features.get(name):
            yield _feature_column(feature)
        elif name in keys:
            single = len(keys) == 1
            yield _column(name, dtype, f"Key. {entity.description}".strip(), unique=single)
        else:
            yield _column(name, dtype, "The end of the day: from here on the row is valid.")


def _bronze_columns(of: Source | Snapshot) -> Iterator[dg.TableColumn]:
    identifying = set(of.order)
    for name, dtype in of.columns.items():
        described = None
        if isinstance(of, Source) and name == "event_time":
            zone = f", wall clock of {of.time_zone}" if of.time_zone else ""
            described = f"When it happened; `{of.event_time}` of the files{zone}."
        yield _column(name, dtype, described, nullable=name not in identifying)


def _feature_column(feature: Feature) -> dg.TableColumn:
    unit = f" [{feature.unit}]" if feature.unit else ""
    return _column(
        feature.name,
        feature.type,
        f"{feature.description}{unit}",
        nullable=feature.nullable,
        promised=list(_promised(feature)),
        tags={"pii": ""} if feature.pii else {},
    )


def _promised(feature: Feature) -> Iterator[str]:
    if feature.at_least is not None:
        yield f"≥ {feature.at_least:g}"
    if feature.at_most is not None:
        yield f"≤ {feature.at_most:g}"
    if feature.one_of is not None:
        yield f"one of {', '.join(map(str, feature.one_of))}"
    if feature.fill_rate is not None:
        yield f"filled ≥ {feature.fill_rate:.4g}"
    if feature.max_psi is not None:
        yield f"PSI ≤ {feature.max_psi:g}"
    if feature.empty is not UNSET:
        yield f"empty: {'null' if feature.empty is None else feature.empty}"


def _column(
    name: str,
    dtype: pl.DataType,
    description: str | None,
    *,
    nullable: bool = False,
    unique: bool = False,
    promised: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.TableColumn:
    constraints = dg.TableColumnConstraints(nullable=nullable, unique=unique, other=promised or [])
    return dg.TableColumn(
        name,
        type=_type_name(dtype),
        description=description,
        constraints=constraints,
        tags=tags or {},
    )


def _type_name(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"Datetime({', '.join(filter(None, (dtype.time_unit, dtype.time_zone)))})"
    return str(dtype)


def lineage(view: FeatureView) -> dg.TableColumnLineage:
    """Return which columns of its inputs each feature is made of."""
    return dg.TableColumnLineage(
        {
            feature: [
                dg.TableColumnDep(asset_key=dg.AssetKey(name), column_name=column)
                for name, columns in inputs.items()
                for column in columns
            ]
            for feature, inputs in column_lineage(view).items()
        }
    )


def code_reference(view: FeatureView) -> dg.CodeReferencesMetadataValue:
    """Return the link that opens the view's function in the engineer's editor."""
    return dg.CodeReferencesMetadataValue(
        code_references=[
            dg.LocalFileCodeReference(
                file_path=str(view.file), line_number=view.line, label=view.name
            )
        ]
    )


def promise(view: FeatureView) -> dict[str, str]:
    """Return what the contract says of the view as a whole."""
    contract = view.contract
    return {
        "ttl": "for ever" if contract.ttl is None else length(contract.ttl),
        "when_absent": contract.when_absent,
        "freshness": length(contract.freshness),
        "landing_delay": length(contract.landing_delay),
    }


def length(of: timedelta) -> str:
    """Return a length of time for people, `1 day 5 h`."""
    hours, seconds = divmod(of.seconds, 3600)
    parts = [
        f"{of.days} day{'' if of.days == 1 else 's'}" if of.days else "",
        f"{hours} h" if hours else "",
        f"{seconds / 60:g} min" if seconds else "",
    ]
    return " ".join(filter(None, parts)) or "0 h"


def pictured(days: Iterable[date]) -> frozenset[date]:
    """Return the days of a range whose histograms are drawn."""
    return frozenset(sorted(days)[-PICTURED_DAYS:])


def view_day(
    view: FeatureView, outcome: DayOutcome, *, pictures: bool, zone: ZoneInfo | None = None
) -> dict[str, Any]:
    """Return the metadata of one committed day of a view; numbers are plotted over time.

    Their names are the same every day: rows, `fill_rate:` and `psi:` of each feature, and the share
    of entities that are new.
    """
    fill = {f"fill_rate:{name}": _short(c.fill_rate) for name, c in outcome.profile.items()}
    measured = {n: v for verdict in outcome.verdicts for n, v in verdict.numbers.items()}
    plotted = {
        name: _short(value)
        for name, value in measured.items()
        if name.startswith("psi:") or name == "new_entity_rate"
    }
    shown = {"preview": preview(view, outcome.frame)} if outcome.frame is not None else {}
    drawn = _histograms(view, outcome.frame) if pictures and outcome.frame is not None else {}
    return {**_committed(outcome, zone), **outcome.counts, **fill, **plotted, **shown, **drawn}


def source_day(outcome: DayOutcome, zone: ZoneInfo | None = None) -> dict[str, Any]:
    """Return the metadata of one committed day of a source; without a zone, of a snapshot."""
    return {**_committed(outcome, zone), **outcome.counts}


def in_utc(day: date, zone: ZoneInfo) -> str:
    """Return what a day is in UTC: `2026-03-08 05:00 to 2026-03-09 04:00, 23 h`."""
    start, end = day_start(day, zone), as_of(day, zone)
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, {(end - start) / _HOUR:g} h"


def _committed(outcome: DayOutcome, zone: ZoneInfo | None) -> dict[str, Any]:
    covers = {} if zone is None else {"day_in_utc": in_utc(outcome.day, zone)}
    return {
        **covers,
        "rows": outcome.rows,
        "revision": outcome.revision,
        "delta_version": outcome.version,
        "content_hash": outcome.content_hash[:16],
        "reused_commit": outcome.status == "unchanged",
    }


def _short(number: float) -> float:
    return round(number, 6)


def pushed_days(pushed: Pushed, revisions: Mapping[date, int]) -> dict[date, dict[str, Any]]:
    """Return the metadata per day of one push; what it wrote stands with its newest day.

    A push of a range writes an entity's newest row once, so its numbers belong to no single day.
    """
    newest = max(revisions)
    shown: dict[date, dict[str, Any]] = {
        day: {"revision": revision, "delta_version": pushed.version, "pushed_with": span(revisions)}
        for day, revision in revisions.items()
    }
    shown[newest] |= receipt_metadata(pushed.receipt) | {
        "rows_wiped": pushed.wiped,
        "rows_per_second": round(pushed.rows_per_second or 0),
        "seconds": round(pushed.seconds, 3),
    }
    return shown


def receipt_metadata(receipt: Receipt) -> dict[str, int]:
    """Return the numbers of a receipt, of a push that failed as well."""
    return {
        "rows_written": receipt.written,
        "rows_superseded": receipt.superseded,
        "rows_removed": receipt.removed,
        "rows_expired": receipt.expired,
        "rows_failed": receipt.failed,
        "buckets_sealed": len(receipt.sealed),
    }


def preview(view: FeatureView, frame: pl.DataFrame) -> dg.MetadataValue:
    """Return the first rows as a table, PII and keys masked; all are valid from the day's end.

    Events are kept for ever and no erasure reaches them: they must not say whose values these are.
    """
    keys = pl.lit(MASK).alias
    rows = frame.head(PREVIEW_ROWS).select(pl.exclude("event_timestamp"))
    return dg.MetadataValue.md(
        markdown_table(masked(view, rows).with_columns(map(keys, view.contract.keys)))
    )


def masked(view: FeatureView, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame as text with PII columns masked where they have a value."""
    hidden = {name for name, feature in view.contract.features.items() if feature.pii}
    return frame.select(
        pl.when(pl.col(name).is_not_null()).then(pl.lit(MASK)).alias(name)
        if name in hidden
        else pl.col(name)
        for name in frame.columns
    )


def markdown_table(frame: pl.DataFrame) -> str:
    """Return the rows as a markdown table."""
    lines = [list(frame.columns), ["---"] * frame.width, *(map(_cell, row) for row in frame.rows())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _histograms(view: FeatureView, frame: pl.DataFrame) -> dict[str, dg.MetadataValue]:
    """Return a picture per feature; one each, as the UI shows only short markdown in place."""
    drawn = {
        name: histogram_svg(frame[name], feature)
        for name, feature in view.contract.features.items()
    }
    return {
        f"histogram:{name}": dg.MetadataValue.md(f"![histogram]({data_uri(svg)})")
        for name, svg in drawn.items()
        if svg
    }


def readable_tags(of: Readable) -> Mapping[str, str]:
    """Return the asset's tags: its own, and `pii` if a column identifies a person."""
    if isinstance(of, (Source, Snapshot)):
        return {"layer": "bronze"}
    pii = any(feature.pii for feature in of.contract.features.values())
    return {**of.contract.tags, "entity": of.contract.entity.name, **({"pii": ""} if pii else {})}
