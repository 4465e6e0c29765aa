"""Commands about model versions: train them, explain what they did."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import Entity, PredictedAt, UseCaseName

PANEL = "Models"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def train(
    use_case: UseCaseName,
    cutoff: Annotated[str, typer.Option(help="Partition at whose start the known world ends.")],
) -> None:
    """Train a model version on what was known before a cutoff; it does not serve yet."""
    from ml_platform import training
    from ml_platform.cli import printing
    from ml_platform.cli.platform import moment_of, opened

    with opened() as platform:
        case = platform.case(use_case)
        moment, tags = moment_of(case, cutoff), {"trained_by": platform.person}
        platform.audit("train", case.name, "model", cutoff=cutoff)
        report = training.train(
            platform.lake,
            platform.registry,
            case,
            moment,
            platform.commit(case, "model"),
            tags=tags,
        )
        printing.show_training(case, report)


@commands.command(rich_help_panel=PANEL)
def reproduce(
    use_case: UseCaseName,
    partition: Annotated[str, typer.Option(help="Partition whose predictions are recomputed.")],
) -> None:
    """Score a partition again from what it was made of, and compare to the bit."""
    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, range_of

    with opened() as platform:
        case = platform.case(use_case)
        window = range_of(platform, case, partition, None)
        printing.show_reproduction(
            case, scoring.reproduce(platform.lake, platform.registry, case, window)
        )


@commands.command(rich_help_panel=PANEL)
def trace(use_case: UseCaseName, entity: Entity, at: PredictedAt = None) -> None:
    """Follow a prediction for an example to features, source rows, model and commit."""
    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import entity_of, opened
    from ml_platform.spec.ranges import named_time

    with opened() as platform:
        case = platform.case(use_case)
        keys = entity_of(case, entity)
        then = None if at is None else named_time(case, at)
        found = scoring.trace(platform.lake, platform.registry, case, keys, at=then)
        printing.show_trace(case, found)


@commands.command(rich_help_panel=PANEL)
def explain(
    use_case: UseCaseName,
    entity: Entity,
    at: PredictedAt = None,
    samples: Annotated[
        int, typer.Option(min=2, help="More take longer and leave smaller errors.")
    ] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="All columns, as JSON.")] = False,
) -> None:
    """Show what each column contributed to a stored prediction."""
    import json
    from dataclasses import asdict

    from ml_platform import scoring
    from ml_platform.cli import printing
    from ml_platform.cli.platform import entity_of, opened
    from ml_platform.spec.ranges import named_time

    with opened() as platform:
        case = platform.case(use_case)
        keys = entity_of(case, entity)
        then = None if at is None else named_time(case, at)
        found = scoring.explain_prediction(
            platform.lake, platform.registry, case, keys, at=then, samples=samples + samples % 2
        )
    if as_json:
        print(json.dumps(asdict(found), default=str, indent=2))
    else:
        printing.show_explanation(found)
