"""Results of commands, as tables for people."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ml_platform.backfill import Recalendared
    from ml_platform.errors import PlatformError
    from ml_platform.features import LeakReport, Published
    from ml_platform.monitoring import DriftRun, PerformanceRun
    from ml_platform.publish import PublishReport
    from ml_platform.registry import Promotion
    from ml_platform.scoring import Explanation, PredictionTrace, Reproduction, ScoreReport
    from ml_platform.sources import IngestReport
    from ml_platform.spec.scaffold import ProjectFiles, Scaffolded
    from ml_platform.spec.use_case import UseCase
    from ml_platform.spec.windows import Window
    from ml_platform.storage import Written
    from ml_platform.training import TrainingReport

MOST_ROWS = 40
MOST_CONTRIBUTIONS = 12
"""Of a table on a screen."""
UNBOUNDED = 1_000_000
"""Columns where nobody looks: what is kept, or read by a program, is whole."""


def console() -> Console:
    """Standard output; lines keep their length where nobody looks."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=UNBOUNDED)


def range_in(keys: tuple[str, str]) -> str:
    """A range of partitions as `--range` takes it, by its first and its last key.

    >>> range_in(("2024-03-01", "2024-03-09")), range_in(("2024-03-01", "2024-03-01"))
    ('2024-03-01...2024-03-09', '2024-03-01')
    """
    from ml_platform.spec.ranges import BETWEEN

    first, last = keys
    return first if first == last else f"{first}{BETWEEN}{last}"


def moment_in(zone: tzinfo, moment: datetime, timespec: str = "minutes") -> str:
    """An aware moment by the clocks of a zone, which is named; timespec: as of `isoformat`.

    >>> from zoneinfo import ZoneInfo
    >>> moment_in(ZoneInfo("America/New_York"), datetime(2024, 1, 1, 5, tzinfo=UTC))
    '2024-01-01 00:00 EST'
    """
    local = moment.astimezone(zone)
    return f"{local.replace(tzinfo=None).isoformat(' ', timespec)} {local:%Z}"


def show_leaks(reports: Sequence["LeakReport"]) -> None:
    """How much was checked; LeakFound with every leak where there is one."""
    from ml_platform.errors import LeakFound

    if leaks := [report.problem for report in reports if report.problem]:
        raise LeakFound("\n".join(leaks))
    moments = sum(len(report.cuts) for report in reports)
    show_line(f"no leak: the same with the future hidden, at {moments} moments")


def show_project(folder: Path, made: "ProjectFiles") -> None:
    """What was written, what was there, and what to do next."""
    for file in made.written:
        show_line(f"wrote {folder / file}")
    for file in made.kept:
        show_line(f"kept  {folder / file}, which was there")
    steps = ["ml-platform new churn --from customers.csv", "make dev"]
    show_line("next: " + "; ".join([*([] if folder == Path() else [f"cd {folder}"]), *steps]))


def show_scaffold(name: str, made: "Scaffolded") -> None:
    """What was guessed and why, and what to do next."""
    guess = made.guess
    rows = [
        ("event time", guess.event_time, guess.reasons["event_time"]),
        ("key", ", ".join(guess.key), guess.reasons["key"]),
        ("label", guess.label, guess.reasons["label"]),
        ("task", guess.task, guess.reasons["task"]),
        ("cadence", guess.rhythm.cadence, guess.reasons["cadence"]),
        ("history by", guess.group, guess.reasons["group"]),
    ]
    show_table(("guessed", "", "why"), rows)
    for column, why in guess.left_out.items():
        show_line(f"not given to the model: {column}: {why}")
    for column, why in guess.doubted.items():
        show_line(f"warning: {column}: {why}; given because you said so")
    show_line(f"wrote {made.folder}; read its README.md first, it says what was assumed")
    landed = "landed" if made.is_landed else "put at"
    show_line(f"{landed} {made.landed}")
    commands = ("ingest", "features", "labels")
    show_line("next: " + "; ".join(f"ml-platform {command} {name}" for command in commands))


def show_ingest(case: "UseCase", source: str, report: "IngestReport") -> None:
    """Rows of one source, and the files that could not be read."""
    counts = report.windows.values()
    landed, ingested = sum(c.landed for c in counts), sum(c.ingested for c in counts)
    changed = sum(c.changed for c in counts)
    where = "" if case.sources[source].rows_of else f" in {report.files} files"
    show_line(
        f"{source}: {landed} rows landed{where}, {ingested} ingested, "
        f"{landed - ingested} quarantined; {changed} partitions changed"
    )
    if report.ignored_columns:
        show_line(f"{source}: not declared, so ignored: {', '.join(report.ignored_columns)}")
    for refused in report.refused:
        show_line(f"{source}: refused {refused}")


def show_written(table: str, written: "Written") -> None:
    """How much a table holds of a range now."""
    filled = sum(rows > 0 for rows in written.rows.values())
    show_line(
        f"{table}: {sum(written.rows.values())} rows in {filled} of {len(written.rows)} "
        f"partitions; {len(written.changed)} changed"
    )


def show_recalendared(case: "UseCase", done: "Recalendared") -> None:
    """What was moved to other windows, and what is to be computed of them."""
    if not done.before:
        show_line(f"{case.name}: what is stored lies in the windows that it declares already")
        return
    show_line(f"{case.name}: the calendar was {done.before}")
    for table, rows in sorted(done.moved.items()):
        show_line(f"{table}: {rows} rows, all kept, lie in the new windows")
    if done.dropped:
        show_line(f"to be computed again: {', '.join(done.dropped)}")
    # Files are read again: which window a broken row counts to is known from them alone.
    publish = f"; ml-platform publish {case.name}" if case.model_views else ""
    show_line(f"next: ml-platform backfill {case.name} --with-sources{publish}")


def show_published(case: "UseCase", published: Mapping[str, "Published"]) -> None:
    """What the online store was given of each feature view."""
    rows = [
        (
            view,
            str(sum(each.rows.values())),
            str(sum(rows > 0 for rows in each.rows.values())),
            moment_in(case.calendar.timezone, each.newest) if each.newest else "none",
        )
        for view, each in published.items()
    ]
    if rows:
        show_table(("feature view", "rows stored", "partitions", "newest"), rows)
    else:
        show_line(f"the model of {case.name} is given no feature view")


def show_publication(case: "UseCase", report: "PublishReport") -> None:
    """What a table of others was given; partitions of which it holds fewer or more rows."""
    rows = sum(counted.rows_out for counted in report.windows.values())
    show_line(f"{report.target}: {rows} rows of {len(report.windows)} partitions")
    for window, counted in report.windows.items():
        if not counted.is_complete:
            key = case.calendar.key(window)
            show_line(
                f"{key}: {counted.rows_in} rows were published, the table holds "
                f"{counted.rows_out} of it"
            )


def show_training(case: "UseCase", report: "TrainingReport") -> None:
    """A model version and how it did on its holdout."""
    key = case.calendar.key(case.calendar.window_at(report.cutoff))
    known = "trained" if report.is_new else "was trained before"
    show_line(f"version {report.version} of {case.name} {known}, cutoff {key}")
    show_table(("metric", "value"), [(name, f"{v:.6g}") for name, v in report.metrics.items()])
    for warning in report.warnings:
        show_line(f"warning: {warning}")
    show_line(f"next: ml-platform promote {case.name} {report.version}")


def show_serving(case: "UseCase", promotion: "Promotion") -> None:
    """What is left to do after a decision until the version answers."""
    if promotion.serves:
        # Rows by key are answered with features that were published, and refused without.
        publish = f"ml-platform publish {case.name}; " if case.model_views else ""
        show_line(f"next: {publish}ml-platform score {case.name}; ml-platform serve")


def show_promotions(case: "UseCase", promotions: Iterable["Promotion"]) -> None:
    """Decisions, in the order in which they were made."""
    zone = case.calendar.timezone
    rows = [
        (
            str(p.version),
            p.decision,
            case.calendar.key(case.calendar.window_at(p.effective_from)),
            moment_in(zone, p.decided_at),
            p.decided_by,
            p.reason,
        )
        for p in promotions
    ]
    if rows:
        show_table(("version", "decision", "from", "decided", "by", "why"), rows)
    else:
        show_line(f"nothing was decided about {case.name} yet")


def show_scores(case: "UseCase", report: "ScoreReport") -> None:
    """What was predicted, by which versions."""
    if report.written:
        show_written("predictions", report.written)
        versions = ", ".join(str(version) for version in sorted(set(report.versions.values())))
        show_line(f"by version {versions}")
    if report.in_process:
        count, ends = len(report.in_process), (report.in_process[0], report.in_process[-1])
        named = range_in((case.calendar.key(ends[0]), case.calendar.key(ends[1])))
        show_line(
            f"{count} partitions ({named}) in process: the endpoint serves another version than "
            "their champion"
        )
    _show_skipped(case, report.skipped)


def show_drift(case: "UseCase", run: "DriftRun") -> None:
    """The drift report of each window."""
    rows = [
        (
            case.calendar.key(window),
            str(found.version),
            f"{len(found.drifted)} of {found.judged}",
            "failed" if found.failed else "ok" if found.judged else "too few rows",
            found.named,
        )
        for window, found in run.windows.items()
    ]
    show_table(("partition", "version", "drifted", "", "columns"), rows)
    for window, found in run.windows.items():
        for segment in found.failing_segments:
            show_line(f"{case.calendar.key(window)}, segment {segment}")
    _show_skipped(case, run.skipped)


def show_performance(case: "UseCase", run: "PerformanceRun") -> None:
    """The performance report of each window."""
    metric = case.model.metric
    verdicts = {True: "ok", False: "failed", None: ""}
    rows = [
        (
            case.calendar.key(window),
            f"{found.labelled} of {found.rows}",
            f"{found.metrics[metric]:.4f}" if metric in found.metrics else found.status,
            verdicts[found.passed],
        )
        for window, found in run.windows.items()
    ]
    show_table(("partition", "labelled", metric, ""), rows)
    _show_skipped(case, run.skipped)


def show_reproduction(case: "UseCase", again: "Reproduction") -> None:
    """Whether stored predictions came back bit for bit."""
    same = again.rows - again.different
    versions = ", ".join(str(version) for version in again.versions)
    show_line(
        f"{case.calendar.key(again.window)}: {same} of {again.rows} predictions of version "
        f"{versions} at snapshot {again.snapshot} came back to the bit"
    )


def value_in(zone: tzinfo, value: Any) -> str:
    """A value of a row, times as `moment_in`; those that are declared without a zone have none."""
    is_moment = isinstance(value, datetime) and value.tzinfo is not None
    return moment_in(zone, value, "auto") if is_moment else str(value)


def show_trace(case: "UseCase", found: "PredictionTrace") -> None:
    """One prediction, the feature rows and source rows behind it, and its model."""
    zone = case.calendar.timezone
    show_table(("prediction", ""), [(k, value_in(zone, v)) for k, v in found.prediction.items()])
    rows = []
    for feature in found.features:
        row = feature.row
        at = value_in(zone, row["event_time"]) if row else "none was fresh enough"
        sources = [
            f"{s.count} rows of {s.source}, latest {s.origins[0][0]}:{s.origins[0][1]}"
            for s in feature.sources
            if s.origins
        ]
        rows.append((feature.view, at, "; ".join(sources)))
    show_table(("feature view", "row of", "could be computed from"), rows)
    show_table(("model", ""), sorted(found.model.items()))


def show_explanation(found: "Explanation") -> None:
    """The columns that a prediction rests on most, and what the others add up to."""
    shown = list(found.contributions)[:MOST_CONTRIBUTIONS]
    rest = [found.contributions[name] for name in found.contributions if name not in shown]
    show_line(
        f"{found.output} {found.prediction:.4f}; the mean of rows that the version was fitted on "
        f"is {found.base:.4f}, and the columns add {found.prediction - found.base:+.4f}"
    )
    rows = [
        (name, value_in(UTC, found.values[name]), f"{found.contributions[name]:+.4f}",
         f"± {found.errors[name]:.4f}")
        for name in shown
    ]  # fmt: skip
    if rest:
        rows.append((f"{len(rest)} others", "", f"{sum(rest):+.4f}", ""))
    show_table(("column", "value", "contribution", "standard error"), rows)


def _show_skipped(case: "UseCase", skipped: Mapping["Window", "PlatformError"]) -> None:
    reasons: dict[str, list[str]] = {}
    for window in sorted(skipped, key=lambda window: window.start.astimezone(UTC)):
        key, text = case.calendar.key(window), str(skipped[window])
        # Reasons name their window; without its name those of many windows are the same.
        for name in (str(window), window.start.isoformat(), key):
            text = text.replace(f" at {name}", "").replace(f" in {name}", "").replace(name, "it")
        reasons.setdefault(text, []).append(key)
    for text, keys in reasons.items():
        window_range = keys[0] if len(keys) == 1 else f"{keys[0]}...{keys[-1]}"
        show_line(f"skipped {len(keys)} partitions ({window_range}): {text}")


def show_table(header: Iterable[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Rows below their headings; on a screen, the last of many."""
    page = console()
    shown = rows[-MOST_ROWS:] if page.is_terminal else rows
    table = Table(box=None, pad_edge=False)
    for name in header:
        # What is longer than its column continues in the next line: an id is none without its end.
        table.add_column(name, overflow="fold")
    for row in shown:
        table.add_row(*(escape(cell) for cell in row))
    if rows:
        page.print(table)
    if len(rows) > len(shown):
        show_line(f"the last {len(shown)} of {len(rows)} rows; a file or a pipe gets all of them")


def show_line(text: str) -> None:
    """One line, however long."""
    console().print(escape(text), soft_wrap=True)
