"""What the UI shows of a view, and of each of its days."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Final

import dagster as dg
import polars as pl

from lockstep.lineage import column_lineage
from lockstep.outcome import DayOutcome
from lockstep.picture import data_uri, histogram_svg
from lockstep.push import Pushed
from lockstep.sources import Readable, Snapshot, Source
from lockstep.view import FeatureView

PREVIEW_ROWS: Final = 5
MASK: Final = "•••"
PICTURED_DAYS: Final = 7
"""Pictures are drawn for the last days of a range only: they are most of an event's size."""


def column_schema(of: Readable) -> dg.TableSchema:
    """Return the columns tab: types, descriptions, units and PII."""
    features = of.contract.features if isinstance(of, FeatureView) else {}
    return dg.TableSchema(
        [
            dg.TableColumn(
                name,
                type=str(dtype),
                description=_description(features[name]) if name in features else None,
                tags={"pii": ""} if name in features and features[name].pii else {},
                constraints=dg.TableColumnConstraints(
                    nullable=name in features and features[name].nullable
                ),
            )
            for name, dtype in of.columns.items()
        ]
    )


def _description(feature: Any) -> str:
    unit = f" [{feature.unit}]" if feature.unit else ""
    return f"{feature.description}{unit}"


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


def pictured(days: Iterable[date]) -> frozenset[date]:
    """Return the days of a range whose histograms are drawn."""
    return frozenset(sorted(days)[-PICTURED_DAYS:])


def view_day(view: FeatureView, outcome: DayOutcome, *, pictures: bool) -> dict[str, Any]:
    """Return the metadata of one committed day of a view; numbers are plotted over time."""
    fill = {f"fill_rate:{name}": c.fill_rate for name, c in outcome.profile.items()}
    psi = {
        name: value
        for verdict in outcome.verdicts
        if verdict.check == "drift"
        for name, value in verdict.numbers.items()
    }
    shown = {"preview": preview(view, outcome.frame)} if outcome.frame is not None else {}
    drawn = _histograms(view, outcome) if pictures and outcome.frame is not None else {}
    return {**_committed(outcome), **fill, **psi, **shown, **drawn}


def source_day(outcome: DayOutcome) -> dict[str, Any]:
    """Return the metadata of one committed day of a source, or of a snapshot."""
    return {**_committed(outcome), **outcome.counts}


def _committed(outcome: DayOutcome) -> dict[str, Any]:
    return {
        "dagster/partition_row_count": outcome.rows,
        "rows": outcome.rows,
        "revision": outcome.revision,
        "delta_version": outcome.version,
        "content_hash": outcome.content_hash[:16],
        "reused_commit": outcome.status == "unchanged",
    }


def pushed_day(pushed: Pushed) -> dict[str, Any]:
    """Return the metadata of a push."""
    return {
        "delta_version": pushed.version,
        "rows_written": pushed.receipt.written,
        "rows_superseded": pushed.receipt.superseded,
        "rows_removed": pushed.receipt.removed,
        "rows_expired": pushed.receipt.expired,
        "buckets_sealed": len(pushed.receipt.sealed),
        "rows_wiped": pushed.wiped,
    }


def preview(view: FeatureView, frame: pl.DataFrame) -> dg.MetadataValue:
    """Return the first rows as a table, PII masked."""
    return dg.MetadataValue.md(markdown_table(masked(view, frame.head(PREVIEW_ROWS))))


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


def _histograms(view: FeatureView, outcome: DayOutcome) -> dict[str, dg.MetadataValue]:
    frame = outcome.frame if outcome.frame is not None else pl.DataFrame()
    drawn = {
        name: histogram_svg(frame[name], feature)
        for name, feature in view.contract.features.items()
    }
    pictures = [f"**{name}**\n\n![{name}]({data_uri(svg)})" for name, svg in drawn.items() if svg]
    return {"histograms": dg.MetadataValue.md("\n\n".join(pictures))} if pictures else {}


def readable_tags(of: Readable) -> Mapping[str, str]:
    """Return the asset's tags: its own, and `pii` if a column identifies a person."""
    if isinstance(of, (Source, Snapshot)):
        return {"layer": "bronze"}
    pii = any(feature.pii for feature in of.contract.features.values())
    return {**of.contract.tags, "entity": of.contract.entity.name, **({"pii": ""} if pii else {})}
