"""Commands that compute the tables of a range, each one call into the library."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import ByEngine, Partition, Range, UseCaseName

PANEL = "Tables"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def ingest(
    use_case: UseCaseName,
    partition: Partition = None,
    range_: Range = None,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="What lands now corrects the past itself.")
    ] = False,
) -> None:
    """Read what has landed into the sources; rows that break a contract go to quarantine.

    A corrected row is known once it has arrived. With --rewrite, or where the source says
    `corrections: rewrite`, the past was wrong, and what was computed from it is computed again.
    Files that cannot be read are refused by name; after all others the exit code is 1.
    """
    from ml_platform import sources
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import landing_range_of, opened
    from ml_platform.errors import LandingError

    refused: set[str] = set()
    with opened() as platform:
        case = platform.case(use_case)
        window_range = landing_range_of(case, partition, range_)
        what = "ingest --rewrite" if rewrite else "ingest"
        platform.audit_tables(what, case, window_range, *case.sources)
        for source in case.sources:
            with computing(platform.lake, case, source, window_range, platform.run_id) as commit:
                report = sources.ingest(
                    platform.lake, case, source, window_range, commit, rewrite=rewrite
                )
            printing.show_ingest(case, source, report)
            refused |= {error.file for error in report.refused}
    if refused:
        files = "file was" if len(refused) == 1 else "files were"
        raise LandingError(
            f"{len(refused)} {files} refused, as said above; correct or remove what is wrong, the "
            "rest is ingested. Rows that were ingested of a file before stay: one from before a "
            "column was declared can be moved out of the landing folder"
        )


@commands.command(rich_help_panel=PANEL)
def features(
    use_case: UseCaseName,
    partition: Partition = None,
    range_: Range = None,
    engine: ByEngine = None,
) -> None:
    """Compute the tables of all feature views, and check a few partitions of each for leaks."""
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.engines import compute_features
    from ml_platform.features import check_and_note
    from ml_platform.spec.use_case import feature_table

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, partition, range_)
        platform.audit_tables("features", case, window_range, *map(feature_table, case.features))
        found = []
        for view in case.features:
            table = feature_table(view)
            with computing(platform.lake, case, table, window_range, platform.run_id) as commit:
                written = compute_features(
                    platform.lake, case, view, window_range, commit, engine=engine
                )
            printing.show_written(table, written)
            found += check_and_note(platform.lake, case, view, written, commit)
        printing.show_leaks(found)


@commands.command(rich_help_panel=PANEL)
def publish(
    use_case: UseCaseName,
    partition: Partition = None,
    range_: Range = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="To this table of `publish:` alone; repeatable."),
    ] = None,
) -> None:
    """Store the newest features online, and bring predictions and features to tables of others.

    Those are the tables that the use case declares under `publish:`. Each partition is one
    transaction there; publishing it again changes nothing.
    """
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.errors import PlatformError
    from ml_platform.features import publish_views
    from ml_platform.publish import publish_range
    from ml_platform.spec.use_case import published_table
    from ml_platform.spec.values import unknown

    with opened() as platform:
        case = platform.case(use_case)
        for name in to or ():
            if name not in case.publish:
                raise PlatformError(f"{case.name}: {unknown('publication', name, case.publish)}")
        window_range = range_of(platform, case, partition, range_)
        names = to or list(case.publish)
        views = () if to else case.features
        changed = (*views, *map(published_table, names))
        platform.audit_tables("publish", case, window_range, *changed)
        if not to:
            online = publish_views(platform.lake, platform.store, case, window_range)
            printing.show_published(case, online)
        for name in names:
            table = published_table(name)
            with computing(platform.lake, case, table, window_range, platform.run_id) as commit:
                report = publish_range(platform.lake, case, name, window_range, commit)
            printing.show_publication(case, report)


@commands.command(rich_help_panel=PANEL)
def labels(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compute the labels that are known by now, and check a few partitions for leaks."""
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.features import check_and_note, compute_labels

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, partition, range_)
        platform.audit_tables("labels", case, window_range, "labels")
        with computing(platform.lake, case, "labels", window_range, platform.run_id) as commit:
            written = compute_labels(platform.lake, case, window_range, commit)
        printing.show_written("labels", written)
        printing.show_leaks(check_and_note(platform.lake, case, None, written, commit))


@commands.command(rich_help_panel=PANEL)
def score(
    use_case: UseCaseName,
    partition: Partition = None,
    range_: Range = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Ask no endpoint, also where one is declared.")
    ] = False,
    engine: ByEngine = None,
) -> None:
    """Predict with the champion of each partition."""
    from ml_platform import scoring
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, partition, range_)
        platform.audit_tables("score", case, window_range, "predictions")
        with computing(platform.lake, case, "predictions", window_range, platform.run_id) as commit:
            report = scoring.score(
                platform.lake, platform.registry, case, window_range, commit,
                in_process=in_process, engine=engine,
            )  # fmt: skip
        report.raise_if_empty()
        printing.show_scores(case, report)


@commands.command(rich_help_panel=PANEL)
def drift(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compare what the champion is given with what it was trained on."""
    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.monitoring import report_drift

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, partition, range_)
        platform.audit_tables("drift", case, window_range, "drift_report")
        with computing(
            platform.lake, case, "drift_report", window_range, platform.run_id
        ) as commit:
            run = report_drift(platform.lake, platform.registry, case, window_range, commit)
        printing.show_drift(case, run)


@commands.command(rich_help_panel=PANEL)
def performance(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compare predictions with the labels that have arrived."""
    from datetime import UTC, datetime

    from ml_platform.backfill import computing
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.monitoring import report_performance

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, partition, range_)
        platform.audit_tables("performance", case, window_range, "performance_report")
        table, now = "performance_report", datetime.now(UTC)
        with computing(platform.lake, case, table, window_range, platform.run_id) as commit:
            run = report_performance(platform.lake, case, window_range, commit, now=now)
        printing.show_performance(case, run)
