"""Pictures of few characters: Markdown that shows them needs no other file.

The UI of Dagster shows Markdown of less than 1,000 characters in its place, and longer texts after
a click.
"""

from collections.abc import Sequence
from itertools import pairwise

WIDTH, HEIGHT, MARGIN = 440, 90, 12
"""Of a line, in pixels; the margin is for labels above and below it."""
INTERVAL_HEIGHT = 40
_IN_ADDRESS = str.maketrans({"%": "%25", "#": "%23", "<": "%3C", ">": "%3E"})


def in_markdown(svg: str, name: str) -> str:
    """A picture as Markdown.

    >>> in_markdown("<svg/>", "roc_auc")
    '![roc_auc](<data:image/svg+xml,%3Csvg/%3E>)'
    """
    return f"![{name}](<data:image/svg+xml,{svg.translate(_IN_ADDRESS)}>)"


def draw_line(points: Sequence[float], limits: Sequence[float]) -> str:
    """At least two points from left to right, and limits as red lines across."""
    low, high = min(*points, *limits), max(*points, *limits)

    def height(value: float) -> int:
        return MARGIN + round(HEIGHT * (high - value) / ((high - low) or 1))

    step = WIDTH // (len(points) - 1)
    width = step * (len(points) - 1)
    # A minus sign separates numbers as a space does.
    moves = "".join(
        f" {step}{move}" if move < 0 else f" {step} {move}"
        for move in (after - before for before, after in pairwise(map(height, points)))
    )
    red = "".join(f"M0 {height(limit)}h{width}" for limit in limits)
    bottom = HEIGHT + 2 * MARGIN
    return _svg(
        width, bottom,
        f"<path stroke='red' d='{red}'/>"
        f"<path stroke='royalblue' d='M0 {height(points[0])}l{moves.strip()}'/>"
        f"<g fill='gray' font-size='11'><text y='9'>{high:.4g}</text>"
        f"<text y='{bottom - 1}'>{low:.4g}</text></g>",
    )  # fmt: skip


def draw_interval(lower: float, value: float, upper: float, limit: float) -> str:
    """A value on the interval that it is in, and a limit as a red line, from small to large."""
    low, high = min(lower, value, limit), max(value, upper, limit)

    def place(value: float) -> int:
        return MARGIN + round((WIDTH - 2 * MARGIN) * (value - low) / ((high - low) or 1))

    middle = INTERVAL_HEIGHT // 2
    return _svg(
        WIDTH, INTERVAL_HEIGHT,
        f"<path stroke='royalblue' d='M{place(lower)} {middle}H{place(upper)}'/>"
        f"<circle fill='royalblue' r='4' cx='{place(value)}' cy='{middle}'/>"
        f"<path stroke='red' d='M{place(limit)} 0v{INTERVAL_HEIGHT}'/>",
    )  # fmt: skip


def _svg(width: int, height: int, drawn: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' fill='none'>"
        f"{drawn}</svg>"
    )
