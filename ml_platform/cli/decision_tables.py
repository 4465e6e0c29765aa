"""What a person decides on, as tables: comparisons of two versions, and what a rollback does."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ml_platform.cli.printing import console, moment_in, range_in

if TYPE_CHECKING:
    from ml_platform.registry import Promotion
    from ml_platform.rollback import RollbackPlan, RollbackStep
    from ml_platform.spec.use_case import UseCase

SEGMENT = "segment "


def show_comparison(case: "UseCase", promotion: "Promotion") -> None:
    """A version that waits: why it passed, the metrics of both, the improvement, the segments."""
    key = case.calendar.key(case.calendar.window_at(promotion.effective_from))
    asked = moment_in(case.calendar.timezone, promotion.decided_at)
    parts: list[RenderableType] = [
        f"version {promotion.version} of {case.name}, cutoff {key}, waits since {asked}",
        escape(promotion.reason),
        _metrics(promotion.figures),
    ]
    if segments := _segments(case, promotion.figures):
        parts.append(segments)
    name = f"{case.name} {promotion.version}"
    parts.append(f"next: ml-platform approve {name} --reason …; ml-platform reject {name} …")
    console().print(Group(*parts), soft_wrap=True)


def show_none_waits(case: "UseCase") -> None:
    """That there is nothing to answer."""
    console().print(f"{case.name}: no challenger waits for a person")


def show_plan(case: "UseCase", plan: "RollbackPlan") -> None:
    """What a rollback would change: who serves, and every partition that is recomputed."""
    key = case.calendar.key
    since = key(case.calendar.window_at(plan.promotion.effective_from))
    replaced = ", ".join(str(version) for version in plan.replaced) or "nobody"
    table = _table("recomputed", "partitions", "which")
    for name, windows in plan.affected.tables:
        named = [range_in(case.calendar.keys(s)) for s in case.calendar.ranges(windows)]
        table.add_row(name, str(len(windows)), ", ".join(named) or "none")
    serves = f"serves again from {since} on, instead of {replaced}"
    if plan.is_decided:
        serves = f"serves from {since} on already; what is left is to recompute"
    console().print(f"{case.name}: version {plan.promotion.version} {serves}", soft_wrap=True)
    if plan.ends_canary is not None:
        console().print(f"the canary of version {plan.ends_canary} ends", soft_wrap=True)
    console().print(table)


def show_next(case: "UseCase", plan: "RollbackPlan") -> None:
    """Who recomputes the partitions."""
    if plan.affected:
        console().print(
            f"the sensor {case.name}_rollback recomputes them; without Dagster, run the command "
            f"with --here --to {plan.promotion.version} --from "
            f"{case.calendar.key(case.calendar.window_at(plan.promotion.effective_from))}",
            soft_wrap=True,
        )


@contextmanager
def progress_of(
    case: "UseCase", plan: "RollbackPlan"
) -> Iterator[Callable[["RollbackStep"], None]]:
    """A bar over the partitions that are recomputed; called with each step that is done."""
    with Progress(console=console(), transient=True) as progress:
        total = sum(len(windows) for _, windows in plan.affected.tables)
        task = progress.add_task("recompute", total=total)

        def advance(step: "RollbackStep") -> None:
            windows = list(case.calendar.windows(step.range))
            progress.advance(task, len(windows) * len(step.tables))

        yield advance


def _metrics(figures: Mapping[str, float]) -> Table:
    table = _table("metric", "challenger", "champion")
    for name, value in figures.items():
        metric = name.removeprefix("challenger_")
        if metric != name:
            other = figures.get(f"champion_{metric}")
            table.add_row(metric, f"{value:.4f}", "" if other is None else f"{other:.4f}")
    return table


def _segments(case: "UseCase", figures: Mapping[str, float]) -> Table | None:
    found = {n.removeprefix(SEGMENT): v for n, v in figures.items() if n.startswith(SEGMENT)}
    if not found:
        return None
    table = _table("segment", "rows", f"improvement of {case.model.metric}")
    for name, improvement in sorted(found.items(), key=lambda item: item[1]):
        table.add_row(escape(name), f"{figures[f'rows {name}']:.0f}", f"{improvement:+.4f}")
    return table


def _table(*header: str) -> Table:
    return Table(*header, box=None, pad_edge=False)
