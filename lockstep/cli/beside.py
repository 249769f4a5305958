"""The profile of what is in quarantine beside what was certified, for a terminal."""

from typing import TYPE_CHECKING, Any, Final

from lockstep.cli.console import cell, out, say, table
from lockstep.cli.masking import MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockstep.beside import Beside, Side

_COLUMNS: Final = (
    *("feature", "of", "rows", "filled", "min", "p5", "p50", "mean", "p95", "max"),
    *("distinct", "PSI"),
)
_BINS: Final = 12


def show_beside(found: "Sequence[Beside]") -> None:
    """Print what differs, the profiles side by side, and the bins of what drifted."""
    if not found:
        return
    named = [one for one in found if one.differs]
    if named:
        rows = [(one.feature, "; ".join(one.differs)) for one in named]
        out().print(table(("feature", "what differs"), rows))
    lines = [line for one in found for line in _lines(one)]
    title = "Profiles side by side, what differs most first"
    out().print(table(_COLUMNS, lines, title))
    values = [line for one in found for line in _values(one)]
    if values:
        out().print(table(("feature", "of", "most frequent values"), values))
    for one in found:
        if one.drift is not None and one.drift.over:
            _show_bins(one)
    if not any(one.drift for one in found):
        say("There is no reference yet that distributions could be compared with.")


def _lines(one: "Beside") -> list[list[object]]:
    return [
        [
            one.feature if at == 0 else "",
            side.of,
            cell(round(side.rows)),
            f"{side.fill_rate:.1%}",
            *_numbers(one, side),
            "" if side.distinct is None else cell(round(side.distinct)),
            _psi(one) if at == 0 else "",
        ]
        for at, side in enumerate(one.sides)
    ]


def _numbers(one: "Beside", side: "Side") -> list[str]:
    if one.pii:
        return [MASK] * 6
    middle = (side.quantiles.get("p5"), side.quantiles.get("p50"), side.mean)
    numbers = (side.minimum, *middle, side.quantiles.get("p95"), side.maximum)
    return ["" if number is None else f"{number:.4g}" for number in numbers]


def _psi(one: "Beside") -> Any:
    psi = one.drift.psi if one.drift else None
    return "" if psi is None else f"{psi:.3f}"


def _values(one: "Beside") -> list[list[object]]:
    return [
        [
            one.feature if at == 0 else "",
            side.of,
            ", ".join(f"{value} {share:.1%}" for value, share in side.top.items()),
        ]
        for at, side in enumerate(one.sides)
        if side.top
    ]


def _show_bins(one: "Beside") -> None:
    if one.drift is None:
        return
    largest = sorted(one.drift.bins, key=lambda each: each.psi, reverse=True)[:_BINS]
    rows = [
        (each.label, f"{each.expected:.1%}", f"{each.actual:.1%}", f"{each.psi:.3f}")
        for each in one.drift.bins
        if each in largest
    ]
    title = f"{one.feature} against {one.drift.against}"
    out().print(table(("bin", "reference", "quarantined", "PSI"), rows, title))
