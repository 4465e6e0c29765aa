"""The review queue on the command line."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

PANEL = "Decisions"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def review(
    use_case: UseCaseName,
    answer: Annotated[
        tuple[str, str] | None, typer.Option(metavar="ID LABEL", help="Answer a prediction.")
    ] = None,
    skip: Annotated[
        str | None, typer.Option(metavar="ID", help="Say that there is no answer.")
    ] = None,
    correct: Annotated[
        bool, typer.Option(help="With --answer: change what was answered or skipped before.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to list.")] = 20,
) -> None:
    """List uncertain predictions that wait for a person, answer one, or skip one."""
    from ml_platform.cli.platform import opened, read_serving_settings
    from ml_platform.cli.printing import value_in
    from ml_platform.errors import PlatformError
    from ml_platform.registry import served_classes
    from ml_platform.serving.records.answers import answering
    from ml_platform.serving.records.feedback import REVIEW, Said
    from ml_platform.serving.records.items import read_label
    from ml_platform.serving.records.review import ReviewQueue

    if answer and skip:
        raise PlatformError("--answer and --skip exclude each other; give one of them")
    if correct and not answer:
        raise PlatformError("--correct goes with --answer ID LABEL")
    with opened() as platform:
        case = platform.case(use_case)
        if case.serving.review is None:
            raise PlatformError(
                f"{case.name} declares no serving.review: nothing of it waits for a person"
            )
        if not answer and not skip:
            # What was looked up is many numbers that a person cannot judge.
            features = case.model_columns.keys() - case.examples.request.keys()
            found = ReviewQueue(platform.lake, [case]).waiting(case.name, limit)
            if not found:
                typer.echo(f"{case.name}: nothing waits for a person")
            for each in found:
                columns = each.columns.items()
                shown = "  ".join(
                    f"{n}={value_in(case.calendar.timezone, value)}"
                    for n, value in columns
                    if n not in features
                )
                typer.echo(f"{each.prediction_id}  {shown}")
            return
        said, is_new = Said(REVIEW, platform.person, "cli"), False
        with answering(
            platform.settings, read_serving_settings(), platform.lake, case,
            lambda: served_classes(platform.lake, platform.registry, case),
        ) as answers:  # fmt: skip
            if answer:
                label = read_label(case, answer[1])
                is_new = answers.label(case.name, answer[0], label, said, corrects=correct)
            elif skip:
                is_new = answers.skip(case.name, skip, said)
        before = "" if is_new else ", as you said before"
        taken = f"{answer[0]} is {answer[1]}" if answer else f"{skip} has no answer"
        typer.echo(f"{taken}{before}")
