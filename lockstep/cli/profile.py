"""`profile`: what the columns of committed days looked like, from what is kept about them."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lockstep.cli.console import cell, emit_json, out, say, table
from lockstep.cli.masking import MASK
from lockstep.cli.opened import opened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from lockstep.profile import ColumnProfile, EntityCounts
    from lockstep.schema import Contract, Feature
    from lockstep.store import Store
    from lockstep.stores.day_index import Head
    from lockstep.view import FeatureView

_COLUMNS: Final = (
    *("feature", "filled", "null", "NaN", "distinct"),
    *("min", "p50", "max", "mean", "std", "most frequent", "PSI"),
)
_SHOWN: Final = 3


def profile(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="A view.")],
    *,
    days: Annotated[
        str | None,
        typer.Option(metavar="FROM..TO", help="Days; the newest committed one if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show what the features of committed days look like: fill, spread, frequent values, drift.

    It reads the profiles that were kept when the days were committed, and no row. Days of the range
    that are not committed are left out. Values of what identifies people are in no profile.
    """
    store = opened()
    of = store.catalog.view(view)
    head = _head(store, of)
    chosen = _chosen(head, days)
    revisions = {day: head.days[day].revision for day in chosen}
    profiles = store.lake.profiles(of.name, revisions)
    entities = store.lake.entity_counts(of.name, revisions)
    if as_json:
        emit_json(
            [
                _data(of.contract, head, day, profiles.get(day, {}), entities.get(day))
                for day in chosen
            ]
        )
        return
    for day in chosen:
        _show(of.contract, head, day, profiles.get(day, {}), entities.get(day))


def _head(store: "Store", view: "FeatureView") -> "Head":
    from lockstep.errors import InputError

    head = store.lake.table(view).head_or_none()
    if head is None or not head.days:
        raise InputError(
            f"{view.name} has no committed day, so there is no profile.",
            fix=f"Materialize it: lockstep materialize {view.name} --days …",
        )
    return head


def _chosen(head: "Head", days: str | None) -> "list[date]":
    from lockstep.errors import InputError
    from lockstep.time import parse_days, span

    wanted = [max(head.days)] if days is None else parse_days(days)
    found = [day for day in wanted if day in head.days]
    if not found:
        raise InputError(
            f"No day of {days} is committed.",
            expected=f"days of {span(head.days)}",
            fix="Ask for one of these.",
        )
    return found


def _data(
    contract: "Contract",
    head: "Head",
    day: "date",
    columns: "Mapping[str, ColumnProfile]",
    entities: "EntityCounts | None",
) -> dict[str, Any]:
    from lockstep.profile import without_values

    return {
        "day": day,
        "revision": head.days[day].revision,
        "rows": head.days[day].rows,
        "entities": entities,
        "features": {
            name: without_values(columns[name]) if feature.pii else columns[name]
            for name, feature in contract.features.items()
            if name in columns
        },
        "drift": _drift(head, day),
    }


def _drift(head: "Head", day: "date") -> "Mapping[str, float]":
    from lockstep.episodes import drift_numbers

    return drift_numbers(head.days[day].note)


def _show(
    contract: "Contract",
    head: "Head",
    day: "date",
    columns: "Mapping[str, ColumnProfile]",
    entities: "EntityCounts | None",
) -> None:
    record = head.days[day]
    came = f", {entities.new:,} of them new and {entities.gone:,} gone" if entities else ""
    say(f"{day}, revision {record.revision}: {record.rows:,} rows{came}", "bold")
    if not columns:
        say("It was committed without a profile; whoever computes it again records one.", "yellow")
        return
    numbers = _drift(head, day)
    rows = [
        _line(contract.features[name], columns[name], numbers.get(f"psi:{name}"))
        for name in contract.features
        if name in columns
    ]
    out().print(table(_COLUMNS, rows))


def _line(feature: "Feature", column: "ColumnProfile", psi: float | None) -> list[object]:
    middle = column.sketch[len(column.sketch) // 2] if column.sketch else None
    numbers = (column.minimum, middle, column.maximum, column.mean, column.std)
    frequent = [f"{value} {count:,}" for value, count in list(column.counts.items())[:_SHOWN]]
    values = [_number(number) for number in numbers] + [", ".join(frequent)]
    return [
        feature.name,
        f"{column.fill_rate:.1%}",
        cell(column.nulls),
        cell(column.nans),
        "" if column.distinct is None else cell(column.distinct),
        *([MASK] * len(values) if feature.pii else values),
        "" if psi is None else f"{psi:.3f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
