"""Small pictures of distributions (SVG) for people; the numbers are in the profiles."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Final

import polars as pl

from lockstep.drift import Bin
from lockstep.schema import Feature

_WIDTH: Final = 192
_HEIGHT: Final = 48
_BARS: Final = 24
_LABEL: Final = 12
_PAIRS: Final = 11
"""Ten ranges of numbers and the missing values."""


def histogram_svg(values: pl.Series, feature: Feature) -> str | None:
    """Return an SVG of at most 24 bars; None for columns that have no picture (PII included).

    It is kept below 700 bytes, so that Dagster's UI shows it in place (up to 1,000 characters of
    markdown, encoded) and an event stays small.
    """
    if feature.pii:
        return None
    if feature.numeric:
        return _numbers(values)
    if feature.type in (pl.String, pl.Boolean):
        return _values(values)
    return None


def bars_svg(counts: Sequence[int], left: str, right: str) -> str:
    """Return an SVG of counted bars, with what stands below the first and the last one."""
    return _svg(list(counts), _label(left), _label(right))


def bins_svg(bins: Sequence[Bin]) -> str | None:
    """Return an SVG of bins, expected (grey, wide) and actual (blue, narrow); None without bins.

    At most eleven bins are drawn, those of the values beyond the ninth as one; a bin that nothing
    is in on either side is left out if it is the last. Kept as small as `histogram_svg`.
    """
    drawn = [one for one in _few(bins) if one.label != "missing" or one.expected or one.actual]
    if not drawn:
        return None
    tallest = max(max(one.expected, one.actual) for one in drawn) or 1.0
    width = _WIDTH // len(drawn)
    inset = width // 4
    expected = "".join(
        _bar(at * width, one.expected / tallest, width - 1) for at, one in enumerate(drawn)
    )
    actual = "".join(
        _bar(at * width + inset, one.actual / tallest, width - 1 - 2 * inset)
        for at, one in enumerate(drawn)
    )
    first, last = drawn[0].label, drawn[-1].label if len(drawn) > 1 else ""
    left, right = escape(_label(first)), escape(_label(last))
    below = _HEIGHT + 11
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT + 14}">'
        f'<path fill="#bbb" d="{expected}"/><path fill="#4f6bed" d="{actual}"/>'
        f'<g font-size="10" font-family="sans-serif" fill="#777"><text y="{below}">{left}</text>'
        f'<text x="{_WIDTH}" y="{below}" text-anchor="end">{right}</text></g></svg>'
    )


def _few(bins: Sequence[Bin]) -> list[Bin]:
    """Return at most eleven bins; the last two of many are those of other and missing values."""
    if len(bins) <= _PAIRS:
        return list(bins)
    kept, rest, missing = bins[: _PAIRS - 2], bins[_PAIRS - 2 : -1], bins[-1]
    others = Bin(
        "other values",
        sum(one.expected for one in rest),
        sum(one.actual for one in rest),
        sum(one.psi for one in rest),
    )
    return [*kept, others, missing]


def _bar(left: int, share: float, width: int) -> str:
    return f"M{left} {_HEIGHT}v-{max(round(share * _HEIGHT), 1)}h{width}V{_HEIGHT}" if share else ""


def data_uri(svg: str) -> str:
    """Return the picture as an address that markdown can show."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _numbers(values: pl.Series) -> str | None:
    """Draw the finite numbers; what lies above the 99th percentile is in the last bar."""
    numbers = values.cast(pl.Float64).drop_nulls().drop_nans()
    numbers = numbers.filter(numbers.is_finite())
    if numbers.is_empty():
        return None
    low, high = numbers.quantile(0.0) or 0.0, numbers.quantile(0.99) or 0.0
    if high <= low:
        return _svg([numbers.len()], f"{low:.4g}", "")
    bar = ((numbers.clip(low, high) - low) / (high - low) * _BARS).floor().clip(0, _BARS - 1)
    counts = dict(bar.cast(pl.Int64).alias("bar").value_counts(name="n").iter_rows())
    return _svg([counts.get(n, 0) for n in range(_BARS)], f"{low:.4g}", f"{high:.4g}")


def _values(values: pl.Series) -> str | None:
    """Draw the most frequent values, each a bar; the first and the last one are named."""
    counted = values.drop_nulls().cast(pl.String).value_counts(name="n", sort=True)
    bars = counted.sort(["n", values.name], descending=[True, False]).head(_BARS).rows()
    if not bars:
        return None
    last = _label(bars[-1][0]) if len(bars) > 1 else ""
    return _svg([count for _, count in bars], _label(bars[0][0]), last)


def _label(value: str) -> str:
    """Return the value's beginning without characters that XML can't hold."""
    return "".join(sign if sign.isprintable() else "·" for sign in value[:_LABEL])


def _svg(counts: list[int], left: str, right: str) -> str:
    tallest, width = max(counts), _WIDTH // len(counts)
    bars = "".join(
        f"M{at * width} {_HEIGHT}v-{max(round(count / tallest * _HEIGHT), 1)}h{width - 1}V{_HEIGHT}"
        for at, count in enumerate(counts)
        if count
    )
    text = f'y="{_HEIGHT + 11}" font-size="10" font-family="sans-serif" fill="#777"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT + 14}">'
        f'<path fill="#4f6bed" d="{bars}"/><text {text}>{escape(left)}</text>'
        f'<text x="{_WIDTH}" text-anchor="end" {text}>{escape(right)}</text></svg>'
    )
