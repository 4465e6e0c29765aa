"""Diagrams as SVG that the server draws: geometry here, markup in `templates/charts.html`.

No script draws them, so a page needs none. A point names its value in a `<title>`, which browsers
show beside the pointer and screen readers read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

Numbers = Sequence[float | None]
Band = Sequence[tuple[float, float] | None]
"""Lower and upper edge at each position, None where there is a gap."""

GAP = 4.0
"""Pixels that stay free on each side of a sparkline."""
LEVELS = (0.5, 1.0, 2.0, 4.0)
"""Where the shades of a heat map begin, in units of the threshold; 1 is drift."""


@dataclass(frozen=True)
class Point:
    """One value of a series."""

    x: float
    y: float
    label: str
    """What it says, in words."""
    href: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Mark:
    """A line across a diagram, or a tick at its edge."""

    at: float
    """Pixels, of x or y."""
    label: str
    href: str = ""


@dataclass(frozen=True)
class Series:
    """A line diagram of values in order, with gaps where there are none."""

    width: float
    height: float
    lines: tuple[str, ...]
    """Points of unbroken parts, as `points` of a `<polyline>`."""
    points: tuple[Point, ...]
    bounds: tuple[Mark, ...]
    """Horizontal lines."""
    ticks: tuple[Mark, ...] = ()
    """Values beside the y axis."""
    dates: tuple[Mark, ...] = ()
    """Labels below the x axis."""
    marks: tuple[Mark, ...] = ()
    """Vertical lines, such as promotions."""
    seconds: tuple[tuple[str, ...], ...] = ()
    """Lines of other series on the same axes."""
    bands: tuple[str, ...] = ()
    """Outlines of areas behind the lines, as `points` of a `<polygon>`."""


@dataclass(frozen=True)
class Value:
    """A value to draw, None where there is none, with what it says and where it leads."""

    value: float | None
    label: str
    href: str = ""
    failed: bool = False


def sparkline(values: Sequence[Value], bounds: Sequence[float] = ()) -> Series | None:
    """A small line without axes; None where no value is known."""
    return _series(values, bounds, 160.0, 32.0, GAP)


def diagram(
    values: Sequence[Value],
    bounds: Sequence[tuple[float, str]] = (),
    *,
    dates: Sequence[tuple[int, str]] = (),
    marks: Sequence[tuple[int, str, str]] = (),
    seconds: Sequence[Numbers] = (),
    bands: Sequence[Band] = (),
    floor: float | None = None,
) -> Series | None:
    """A line with axes; None where no value is known.

    bounds: value and name of horizontal lines. dates: position and label. marks: position, label
    and link of vertical lines. seconds: other series at the same positions. bands: areas from a
    lower to an upper value at the same positions. floor: the axis reaches down to it.
    """
    extra = [floor] if floor is not None else []
    return _series(
        values, [value for value, _ in bounds], 900.0, 220.0, 8.0, extra=extra,
        names=[name for _, name in bounds], dates=dates, marks=marks, seconds=seconds, bands=bands,
    )  # fmt: skip


def _series(
    values: Sequence[Value],
    bounds: Sequence[float],
    width: float,
    height: float,
    gap: float,
    *,
    extra: Sequence[float] = (),
    names: Sequence[str] = (),
    dates: Sequence[tuple[int, str]] = (),
    marks: Sequence[tuple[int, str, str]] = (),
    seconds: Sequence[Numbers] = (),
    bands: Sequence[Band] = (),
) -> Series | None:
    known = [v.value for v in values if v.value is not None]
    if not known:
        return None
    others = [v for each in seconds for v in each if v is not None]
    edges = [edge for band in bands for pair in band if pair for edge in pair]
    everything = [*known, *bounds, *extra, *others, *edges]
    low, high = min(everything), max(everything)
    if high == low:
        low, high = low - 0.5, high + 0.5
    steps = max(len(values) - 1, 1)

    def x(position: float) -> float:
        return gap + (width - 2 * gap) * (position / steps if len(values) > 1 else 0.5)

    def y(value: float) -> float:
        return height - gap - (height - 2 * gap) * (value - low) / (high - low)

    points = tuple(
        Point(x(i), y(v.value), v.label, v.href, v.failed)
        for i, v in enumerate(values)
        if v.value is not None
    )
    named = names or ["" for _ in bounds]
    return Series(
        width, height, _lines([v.value for v in values], x, y), points,
        tuple(Mark(y(value), name) for value, name in zip(bounds, named, strict=True)),
        tuple(Mark(y(tick), f"{tick:g}") for tick in round_ticks(low, high)),
        tuple(Mark(x(position), label) for position, label in dates),
        tuple(Mark(x(position), label, href) for position, label, href in marks),
        tuple(_lines(each, x, y) for each in seconds),
        tuple(outline for band in bands for outline in _outlines(band, x, y)),
    )  # fmt: skip


def _lines(
    values: Numbers, x: Callable[[float], float], y: Callable[[float], float]
) -> tuple[str, ...]:
    lines: list[list[str]] = [[]]
    for position, value in enumerate(values):
        if value is None:
            lines.append([])
        else:
            lines[-1].append(f"{x(position):.1f},{y(value):.1f}")
    return tuple(" ".join(line) for line in lines if len(line) > 1)


def _outlines(
    band: Band, x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    for is_known, part in groupby(enumerate(band), lambda each: each[1] is not None):
        known = [(x(position), edges) for position, edges in part if edges is not None]
        if is_known and len(known) > 1:
            upper = [f"{at:.1f},{y(high):.1f}" for at, (_, high) in known]
            lower = [f"{at:.1f},{y(low):.1f}" for at, (low, _) in reversed(known)]
            yield " ".join(upper + lower)


def round_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """A few round values from low to high.

    >>> round_ticks(0.61, 0.83)
    [0.65, 0.7, 0.75, 0.8]
    >>> round_ticks(0.0, 1.0)
    [0.0, 0.5, 1.0]
    >>> round_ticks(-3.0, 250.0)
    [0.0, 100.0, 200.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.85)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
