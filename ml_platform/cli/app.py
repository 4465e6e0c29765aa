"""Commands, each one call into the library. What is heavy is imported when a command runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ml_platform.errors import PlatformError

app = typer.Typer(
    name="ml-platform",
    help="Features, training, scoring and monitoring of use cases, without Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

UseCaseName = Annotated[str, typer.Argument(metavar="USE_CASE", help="Name of a use case.")]
Partition = Annotated[str | None, typer.Option("--partition", help="One partition, by its key.")]
Range = Annotated[
    str | None, typer.Option("--range", help="Partitions from first...last, both included.")
]


def main() -> None:
    """Run the command line; what goes wrong is one line on standard error and exit code 1."""
    try:
        app()
    except PlatformError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the use case.")],
    file: Annotated[Path, typer.Option("--from", help="CSV, Parquet or JSON lines file.")],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    event_time: Annotated[str | None, typer.Option(help="Column that says when.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Column that tells rows apart.")] = None,
    task: Literal["binary", "multiclass", "regression"] | None = None,
    cadence: Literal["hourly", "daily", "weekly", "monthly"] | None = None,
    timezone: Annotated[str, typer.Option(help="Zone of times without an offset.")] = "UTC",
) -> None:
    """Write a use case that works, guessed from a file; options say what is not to be guessed."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import read_settings
    from ml_platform.spec.scaffold import Overrides, scaffold

    said = Overrides(event_time, label, tuple(key or ()), task, cadence, timezone)
    printing.show_scaffold(name, scaffold(read_settings(), name, file, said))


@app.command()
def check(name: Annotated[str | None, typer.Argument(metavar="[USE_CASE]")] = None) -> None:
    """Load use cases and build their estimators; say everything that is wrong with them."""
    from ml_platform.cli import checking
    from ml_platform.cli.platform import read_settings

    checking.check(read_settings(), name)


@app.command()
def ingest(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Read what has landed into the sources; rows that break a contract go to quarantine."""
    from ml_platform import sources
    from ml_platform.cli import printing
    from ml_platform.cli.platform import landing_stretch_of, opened

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = landing_stretch_of(case, partition, range_)
        for source in case.sources:
            commit = platform.commit(case, source)
            report = sources.ingest(platform.lake, case, source, stretch, commit)
            printing.show_ingest(case, source, report)


@app.command()
def features(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compute the tables of all feature views."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of
    from ml_platform.features import compute_features
    from ml_platform.spec.use_case import feature_table

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = stretch_of(platform, case, partition, range_)
        for view in case.features:
            commit = platform.commit(case, feature_table(view))
            written = compute_features(platform.lake, case, view, stretch, commit)
            printing.show_written(feature_table(view), written)


@app.command()
def labels(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compute the labels that are known by now."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of
    from ml_platform.features import compute_labels

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = stretch_of(platform, case, partition, range_)
        written = compute_labels(platform.lake, case, stretch, platform.commit(case, "labels"))
        printing.show_written("labels", written)


@app.command()
def train(
    use_case: UseCaseName,
    cutoff: Annotated[str, typer.Option(help="Partition at whose start the known world ends.")],
) -> None:
    """Train a model version on what was known before a cutoff; it does not serve yet."""
    from ml_platform import training
    from ml_platform.cli import printing
    from ml_platform.cli.platform import moment_of, opened

    with opened() as platform:
        case = platform.loaded.require(use_case)
        tags = {"trained_by": platform.person}
        report = training.train(
            platform.lake, platform.registry, case, moment_of(case, cutoff),
            platform.commit(case, "model"), tags=tags,
        )  # fmt: skip
        printing.show_training(case, report)


@app.command()
def promote(use_case: UseCaseName, version: Annotated[int, typer.Argument(min=1)]) -> None:
    """Let the promotion gate decide whether a version serves from its cutoff on."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.training import decide

    with opened() as platform:
        case = platform.loaded.require(use_case)
        commit = platform.commit(case, "promotions")
        promotion = decide(
            platform.lake, platform.registry, case, version, commit, decided_by=platform.person
        )
        printing.show_promotions(case, [promotion])


@app.command()
def rollback(
    use_case: UseCaseName,
    version: Annotated[int, typer.Argument(min=1, help="Version that is to serve again.")],
    since: Annotated[str, typer.Option("--from", help="Partition from which on it serves.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")],
) -> None:
    """Let an earlier version serve again, and say which predictions have to be made again."""
    from ml_platform import registry
    from ml_platform.cli import printing
    from ml_platform.cli.platform import moment_of, opened, stale_windows

    with opened() as platform:
        case = platform.loaded.require(use_case)
        promotion = registry.rollback(
            platform.lake, platform.registry, case, version, moment_of(case, since),
            platform.person, reason, platform.commit(case, "promotions"),
        )  # fmt: skip
        printing.show_promotions(case, [promotion])
        printing.show_stale(case, stale_windows(platform, case, promotion))


@app.command()
def score(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Predict with the champion of each partition."""
    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = stretch_of(platform, case, partition, range_)
        commit = platform.commit(case, "predictions")
        report = scoring.score(platform.lake, platform.registry, case, stretch, commit)
        report.raise_if_empty()
        printing.show_scores(case, report)


@app.command()
def drift(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compare what the champion is given with what it was trained on."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of
    from ml_platform.monitoring import report_drift

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = stretch_of(platform, case, partition, range_)
        commit = platform.commit(case, "drift_report")
        run = report_drift(platform.lake, platform.registry, case, stretch, commit)
        printing.show_drift(case, run)


@app.command()
def performance(use_case: UseCaseName, partition: Partition = None, range_: Range = None) -> None:
    """Compare predictions with the labels that have arrived."""
    from datetime import UTC, datetime

    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of
    from ml_platform.monitoring import report_performance

    with opened() as platform:
        case = platform.loaded.require(use_case)
        stretch = stretch_of(platform, case, partition, range_)
        commit = platform.commit(case, "performance_report")
        run = report_performance(platform.lake, case, stretch, commit, now=datetime.now(UTC))
        printing.show_performance(case, run)


@app.command()
def history(use_case: UseCaseName) -> None:
    """Show which version served from when on, and why."""
    from ml_platform import registry
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened

    with opened() as platform:
        case = platform.loaded.require(use_case)
        printing.show_promotions(case, registry.history(platform.lake, case))


@app.command()
def reproduce(
    use_case: UseCaseName,
    partition: Annotated[str, typer.Option(help="Partition whose predictions are recomputed.")],
) -> None:
    """Score a partition again from what it was made of, and compare to the bit."""
    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, stretch_of

    with opened() as platform:
        case = platform.loaded.require(use_case)
        window = stretch_of(platform, case, partition, None)
        printing.show_reproduction(
            case, scoring.reproduce(platform.lake, platform.registry, case, window)
        )


@app.command()
def trace(
    use_case: UseCaseName,
    entity: Annotated[list[str], typer.Argument(help="Key of the example, such as order=17.")],
) -> None:
    """Follow the latest prediction for an example to features, source rows, model and commit."""
    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import entity_of, opened

    with opened() as platform:
        case = platform.loaded.require(use_case)
        keys = entity_of(case, entity)
        printing.show_trace(scoring.trace(platform.lake, platform.registry, case, keys))


@app.command()
def reports(port: Annotated[int, typer.Option(min=0, max=65535)] = 3001) -> None:
    """Serve the pages of drift reports until interrupted."""
    from ml_platform.cli.platform import read_settings
    from ml_platform.serving.reports import serve_reports

    typer.echo(f"http://127.0.0.1:{port}")
    serve_reports(read_settings(), port)
