"""A shifted day beside the usual one, hour by hour, as a small picture (SVG)."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from lockstep.day_shape import SLOTS

_HOURS: Final = 24
_HEIGHT: Final = 48
_STEP: Final = 8
_BELOW: Final = _HEIGHT + 11


def shift_svg(usual: Sequence[float], shifted: Sequence[float]) -> str | None:
    """Return an SVG of 24 hours: the usual shape (grey, filled) and the shifted one (blue, a line).

    None without shapes. It is kept below 700 bytes, so that Dagster's UI shows it in place.

    Args:
        usual: 96 shares of the day's rows, from midnight on.
        shifted: The same of the shifted days.
    """
    if len(usual) != SLOTS or len(shifted) != SLOTS:
        return None
    both = [np.asarray(shape).reshape(_HOURS, -1).sum(axis=1) for shape in (usual, shifted)]
    tallest = max(float(shape.max()) for shape in both) or 1.0
    grey, blue = (_steps([round(float(v) / tallest * _HEIGHT) for v in shape]) for shape in both)
    text = f'y="{_BELOW}" font-size="10" font-family="sans-serif" fill="#777"'
    width = _HOURS * _STEP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT + 14}">'
        f'<path fill="#bbb" d="{grey}V{_HEIGHT}z"/>'
        f'<path fill="none" stroke="#4f6bed" stroke-width="2" d="{blue}"/>'
        f'<text {text}>0 h</text><text x="{width}" text-anchor="end" {text}>24 h</text></svg>'
    )


def _steps(heights: Sequence[int]) -> str:
    """Return a path of steps from the ground line on; level hours are one step."""
    parts, level, width = [f"M0 {_HEIGHT}"], 0, 0
    for height in heights:
        if height != level:
            parts.append(f"{f'h{width}' if width else ''}V{_HEIGHT - height}")
            level, width = height, 0
        width += _STEP
    return "".join(parts) + f"h{width}"
