"""What a training set looks like, on a terminal: a line and a small plot per feature."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from lockstep.cli.console import out, table, text
from lockstep.cli.masking import MASK
from lockstep.training.profile import MOSTLY

if TYPE_CHECKING:
    from lockstep.training.leakage import Leakage
    from lockstep.training.profile import FeatureProfile

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_SHOWN: Final = 3
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def show_profile(profile: "Mapping[str, FeatureProfile]", *, hidden: Collection[str]) -> None:
    """Print shares, ages and distributions per feature.

    Args:
        hidden: Features whose values are not shown.
    """
    rows = [_row(name, found, hidden=name in hidden) for name, found in profile.items()]
    columns = ("feature", "null", "no row", "expired", "median age", "values", "distribution")
    out().print(table(columns, rows))


def show_leakage(leakage: "Leakage") -> None:
    """Print how many cells differ between the modes, most suspicious feature first."""
    rows = [
        (
            leak.feature,
            _share(leak.share),
            leak.changed,
            leak.from_null,
            leak.to_null,
            _number(leak.mean_difference),
            _number(leak.largest_difference),
        )
        for leak in leakage.features
    ]
    columns = ("feature", "changed", "cells", "had none", "lost one", "mean diff.", "max diff.")
    title = "By event time against what could be known"
    out().print(table(columns, rows, title))


def _row(name: str, found: "FeatureProfile", *, hidden: bool) -> Sequence[object]:
    shares = (found.null_share, found.unmatched_share, found.expired_share)
    return (
        name,
        *(_share(share) if found.rows else text("") for share in shares),
        text(_age(found.age_seconds.get("0.5"))),
        text(MASK if hidden else _values(found)),
        text("" if hidden else spark(found.counts)),
    )


def _share(share: float) -> Text:
    return text(f"{share:.1%}", "yellow" if share > MOSTLY else "")


def _values(found: "FeatureProfile") -> str:
    if found.top:
        return ", ".join(found.top[:_SHOWN])
    if found.values.minimum is None or found.values.maximum is None:
        return ""
    middle = found.values.sketch[len(found.values.sketch) // 2] if found.values.sketch else None
    return f"{found.values.minimum:.4g} … {_number(middle)} … {found.values.maximum:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def spark(counts: Sequence[int]) -> str:
    """Return a line of bars, the tallest for the largest count; a blank for none."""
    tallest = max(counts, default=0)
    return "".join(
        _LEVELS[min(len(_LEVELS) - 1, count * len(_LEVELS) // tallest)] if count else " "
        for count in counts
    )
