"""The lines of the table."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.audit.measure import AUDITED
from benchmarks.table import Limit, Row, held_to

PROFILE = Limit("< 0.5 s", most=0.5)
SHARE = Limit("< 15 %", most=0.15)
YEAR = Limit("< 1 s", most=1.0)


def rows_of(results: Mapping[str, Any]) -> list[Row]:
    """Every line."""
    return [*_day(results["day"], results["cpu"]), *_year(results["year"])]


def audit_share(day: Mapping[str, float]) -> float:
    """What profile, contract, Soda and drift take of a day's materialization."""
    return sum(day[name] for name in AUDITED) / day["materialize"]


def _day(day: Mapping[str, float], cpu: Mapping[str, float]) -> Iterator[Row]:
    whole = day["materialize"]
    yield Row("materialize one day", _seconds(whole))
    yield Row("of it computing", _part(day["compute"], whole))
    yield held_to("profile", _part(day["profile"], whole), PROFILE, day["profile"])
    for name in AUDITED[1:]:
        yield Row(name, _part(day[name], whole))
    for of, seconds in (("", day), (", in CPU time", cpu)):
        together = _part(sum(seconds[name] for name in AUDITED), seconds["materialize"])
        what = f"profile, contract, Soda and drift{of}"
        yield held_to(what, together, SHARE, audit_share(seconds))
    yield Row("new entities, against the day before", _part(day["new entities"], whole))
    yield Row("the whole audit, keys included", _part(day["whole audit"], whole))


def _year(year: Mapping[str, Any]) -> Iterator[Row]:
    yield Row(f"{year['numbers']:,} PSI: reading the profiles", _seconds(year["read"]))
    yield held_to(f"{year['numbers']:,} PSI: measuring", _seconds(year["psi"]), YEAR, year["psi"])


def _seconds(value: float) -> str:
    return f"{value:.3f} s"


def _part(value: float, whole: float) -> str:
    return f"{_seconds(value)} = {value / whole:.1%}"
