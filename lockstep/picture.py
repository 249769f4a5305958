"""Small histogram pictures (SVG) for people; the numbers are in the profiles."""

import base64
from html import escape
from typing import Final

import polars as pl

from lockstep.schema import Feature

_WIDTH: Final = 180
_HEIGHT: Final = 48
_BARS: Final = 24


def histogram_svg(values: pl.Series, feature: Feature) -> str | None:
    """Return an SVG of at most 24 bars; None for columns that have no picture (PII included)."""
    if feature.pii:
        return None
    if feature.numeric:
        bars = _numeric_bars(values)
    elif feature.type in (pl.String, pl.Boolean):
        counted = values.drop_nulls().cast(pl.String).value_counts(name="n", sort=True)
        bars = [(str(value), int(n)) for value, n in counted.head(_BARS).iter_rows()]
    else:
        return None
    return _svg(feature.name, bars) if bars else None


def data_uri(svg: str) -> str:
    """Return the picture as an address that markdown can show."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _numeric_bars(values: pl.Series) -> list[tuple[str, int]]:
    numbers = values.cast(pl.Float64).drop_nulls().drop_nans()
    numbers = numbers.filter(numbers.is_finite())
    if numbers.is_empty():
        return []
    low, high = numbers.quantile(0.0) or 0.0, numbers.quantile(0.99) or 0.0
    if high <= low:
        return [(f"{low:g}", numbers.len())]
    bar = ((numbers.clip(low, high) - low) / (high - low) * _BARS).floor().clip(0, _BARS - 1)
    counts = dict(bar.cast(pl.Int64).alias("bar").value_counts(name="n").iter_rows())
    step = (high - low) / _BARS
    return [(f"from {low + step * n:.3g}", counts.get(n, 0)) for n in range(_BARS)]


def _svg(name: str, bars: list[tuple[str, int]]) -> str:
    tallest, width = max(count for _, count in bars), _WIDTH / len(bars)
    drawn = "".join(
        f'<rect x="{at * width:.1f}" y="{_HEIGHT - count / tallest * _HEIGHT:.1f}" '
        f'width="{max(width - 1, 1):.1f}" height="{count / tallest * _HEIGHT:.1f}" fill="#4f6bed">'
        f"<title>{escape(label)}: {count}</title></rect>"
        for at, (label, count) in enumerate(bars)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">{drawn}</svg>'
    )
