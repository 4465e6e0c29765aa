"""Replay of the year under several policies, against walking day by day with the live functions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from time import perf_counter

from benchmarks.result import Bench, Line, Result
from benchmarks.year import COMMIT, CUTOFF_AFTER, LABELS_ARRIVE, Year, prepared
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Registry
from ml_platform.replay import Decision, Policy, observe, replay, retraining_due
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.training import decide, train

POLICIES = ("never", "every:30d", "schedule", "drift", "performance", "drift+performance")
WALKED = "drift+performance"
WALKED_DAYS = timedelta(days=30)
"""From the middle of June on drift and performance both fail."""
WALKED_AFTER = timedelta(days=165)
LIMIT = 3.0


def run(bench: Bench) -> Result:
    """Replay all policies over the year, then one of them and the naive walk over a month."""
    year = prepared(bench).copy(bench.folder / "lake")
    window_range = Window(year.range.start + CUTOFF_AFTER, year.range.end)
    start = min(year.range.start + WALKED_AFTER, year.range.end - WALKED_DAYS)
    month = Window(start, start + WALKED_DAYS)
    with year.opened() as lake:
        seconds = {name: _replayed(year, lake, window_range, [name])[0] for name in POLICIES}
        together, _ = _replayed(year, lake, window_range, POLICIES)
        ours, decisions = _replayed(year, lake, month, [WALKED])
        year.drop(lake, "predictions", "drift_report", "performance_report", "promotions")
        registry = Registry(Settings(data=bench.folder / "models"))
        started = perf_counter()
        naive = _walk(lake, registry, year.use_case, month)
        theirs = perf_counter() - started
    days = len(list(year.use_case.calendar.windows(window_range)))
    made = [(d.cutoff.start, d.decision) for d in decisions]
    lines = (
        *(Line(f"{days} days, {name}", f"{value:.1f} s") for name, value in seconds.items()),
        Line(
            f"{days} days, all {len(POLICIES)} at once, against each by itself, times faster",
            f"{together:.1f} s",
            f"{sum(seconds.values()):.1f} s",
            sum(seconds.values()) / together,
        ),
        Line(
            f"{WALKED_DAYS.days} days, {WALKED}, against walking day by day, times faster",
            f"{ours:.1f} s",
            f"{theirs:.1f} s",
            theirs / ours,
            LIMIT,
            at_least=True,
        ),
        Line(
            "decisions that differ from those of the walk",
            str(len(set(made) ^ set(naive))),
            ratio=float(len(set(made) ^ set(naive))),
            limit=0.0,
        ),
    )
    notes = (
        "The walk scores, reports, decides, trains and promotes each day with the functions that "
        f"live assets call, without Dagster; both came to {len(naive)} decisions in the "
        f"{WALKED_DAYS.days} days.",
        "Reading the year is part of each time of the replay.",
    )
    return Result("Replay, against walking day by day", lines, notes)


def _replayed(
    year: Year, lake: Lake, window_range: Window, names: Sequence[str]
) -> tuple[float, tuple[Decision, ...]]:
    policies = [Policy.parse(name, year.use_case) for name in names]
    started = perf_counter()
    found = replay(lake, year.use_case, window_range, policies, threads=year.settings.threads)
    return perf_counter() - started, found.standings[-1].decisions


def _walk(
    lake: Lake, registry: Registry, use_case: UseCase, window_range: Window
) -> list[tuple[object, str]]:
    """Cutoff and decision of each training, the first one among them."""
    calendar = use_case.calendar
    retrain = use_case.retrain.model_copy(update={"on": ("drift", "performance")})
    case = use_case.model_copy(update={"retrain": retrain})
    decisions: list[tuple[object, str]] = []

    def challenge(cutoff: Window) -> None:
        made = train(
            lake, registry, case, cutoff.start, COMMIT, tags={}, window=case.retrain.window
        )
        decided = decide(lake, registry, case, made.version, COMMIT, decided_by="walk")
        decisions.append((cutoff.start, decided.promotion.decision))

    challenge(calendar.window_at(window_range.start))
    for day in calendar.windows(window_range):
        score(lake, registry, case, day, COMMIT)
        report_drift(lake, registry, case, day, COMMIT)
        since = max(day.start - LABELS_ARRIVE, window_range.start)
        report_performance(lake, case, replace(day, start=since), COMMIT, now=day.end)
        if trigger := retraining_due(case, observe(lake, registry, case)):
            challenge(trigger.cutoff)
    return decisions
