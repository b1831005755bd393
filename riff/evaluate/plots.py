"""The plots of an evaluation's page, as SVG in the page's own colours: histograms, maps of clips, intervals."""

import html
import math
from collections.abc import Sequence

import numpy as np

_WIDE, _HIGH = 320, 132
_TOP, _BOTTOM = 8, 20
_BINS = 24


def histogram(title: str, ours: Sequence[float], theirs: Sequence[float] = ()) -> str:
    """How a measurement is distributed over the clips, filled, and over the reference's, as a line.

    Args:
        title: with the unit.
        ours: one number of each clip; those that are not finite are left out.
        theirs: the same of the reference; may be empty.

    Returns:
        A ``figure``; empty if there are fewer than two different numbers.
    """
    sets = [np.array([value for value in values if math.isfinite(value)]) for values in (ours, theirs)]
    every = np.concatenate(sets)
    if not len(sets[0]) or len(np.unique(every)) < 2:
        return ""
    low, high = float(every.min()), float(every.max())
    counts = [np.histogram(values, bins=_BINS, range=(low, high))[0] / max(len(values), 1) for values in sets]
    tallest = max(float(count.max()) for count in counts)
    floor, step = _HIGH - _BOTTOM, _WIDE / _BINS
    heights = [count / tallest * (floor - _TOP) for count in counts]
    bars = "".join(
        f"<rect class='ours' x='{index * step + 0.5:.1f}' y='{floor - tall:.1f}' width='{step - 1:.1f}' "
        f"height='{tall:.1f}' rx='1.5'/>"
        for index, tall in enumerate(heights[0])
        if tall
    )
    line = ""
    if len(sets[1]):
        points = [
            f"{(index + side) * step:.1f},{floor - tall:.1f}"
            for index, tall in enumerate(heights[1])
            for side in (0, 1)
        ]
        line = f"<polyline class='theirs' points='0,{floor} {' '.join(points)} {_WIDE},{floor}'/>"
    ends = (
        f"<text x='0' y='{_HIGH - 4}'>{_short(low)}</text>"
        f"<text x='{_WIDE}' y='{_HIGH - 4}' text-anchor='end'>{_short(high)}</text>"
        f"<line class='floor' x1='0' y1='{floor}' x2='{_WIDE}' y2='{floor}'/>"
    )
    middle = f"median {_short(float(np.median(sets[0])))}"
    if len(sets[1]):
        middle += f", reference {_short(float(np.median(sets[1])))}"
    return _figure(title, middle, bars + line + ends, _WIDE, _HIGH)


def scatter(title: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], note: str) -> str:
    """All clips on two axes: those of the evaluated folder as dots, the reference's as rings.

    Args:
        title: above it.
        ours: (n, 2) places.
        theirs: (m, 2) places.
        note: below the title.
    """
    wide, high, edge = _WIDE, 240, 10
    points = np.array([*theirs, *ours], dtype=float).reshape(-1, 2)
    if not len(ours) or not np.isfinite(points).all():
        return ""
    low, span = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    drawn = []
    for index, (x, y) in enumerate((points - low) / span):
        kind, radius = ("theirs", 3.2) if index < len(theirs) else ("ours", 3.6)
        place = f"cx='{edge + x * (wide - 2 * edge):.1f}' cy='{high - edge - y * (high - 2 * edge):.1f}'"
        drawn.append(f"<circle class='{kind}' {place} r='{radius}'/>")
    frame = f"<rect class='frame' x='.5' y='.5' width='{wide - 1}' height='{high - 1}' rx='8'/>"
    return _figure(title, note, frame + "".join(drawn), wide, high)


def rungs(title: str, values: Sequence[tuple[str, float]]) -> str:
    """How a measure grows or falls from rung to rung of the ladder: a bar for each.

    Args:
        title: of the measure, with its unit.
        values: rung and value; those that are not finite have no bar.
    """
    finite = [abs(value) for _, value in values if math.isfinite(value)]
    if not finite:
        return ""
    largest, tall, parts = max(*finite, 1e-12), 26, []
    for index, (name, value) in enumerate(values):
        top = index * tall
        parts.append(f"<text x='0' y='{top + 15}'>{html.escape(name)}</text>")
        if math.isfinite(value):
            width = abs(value) / largest * (_WIDE - 150)
            parts.append(f"<rect class='ours' x='90' y='{top + 4}' width='{width:.1f}' height='14' rx='4'/>")
            parts.append(f"<text x='{96 + width:.1f}' y='{top + 15}'>{_short(value)}</text>")
    return _figure(title, "back from each rung", "".join(parts), _WIDE, tall * len(values))


def interval_bar(value: float, low: float, high: float) -> str:
    """A share 0..1 as a bar, its 95 % interval as a line across its end."""
    width = 120
    if not math.isfinite(value):
        return ""
    whisker = ""
    if math.isfinite(low) and math.isfinite(high):
        whisker = (
            f"<line class='range' x1='{low * width:.1f}' y1='7' x2='{high * width:.1f}' y2='7'/>"
            f"<line class='range' x1='{low * width:.1f}' y1='4' x2='{low * width:.1f}' y2='10'/>"
            f"<line class='range' x1='{high * width:.1f}' y1='4' x2='{high * width:.1f}' y2='10'/>"
        )
    return (
        f"<svg class='bar' viewBox='-1 0 {width + 2} 14' width='{width + 2}' height='14' aria-hidden='true'>"
        f"<rect class='empty' width='{width}' y='3' height='8' rx='4'/>"
        f"<rect class='ours' width='{max(value * width, 0):.1f}' y='3' height='8' rx='4'/>{whisker}</svg>"
    )


def _figure(title: str, below: str, inside: str, wide: int, high: int) -> str:
    words = f"<b>{html.escape(title)}</b><span>{html.escape(below)}</span>"
    label = html.escape(title, quote=True)
    svg = f"<svg viewBox='0 0 {wide} {high}' role='img' aria-label=\"{label}\">{inside}</svg>"
    return f"<figure><figcaption>{words}</figcaption>{svg}</figure>"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
