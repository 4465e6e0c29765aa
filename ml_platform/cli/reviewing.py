"""The review queue on the command line."""

from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.cli.platform import Platform
    from ml_platform.spec.use_case import UseCase

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
    from ml_platform.serving.records.answers import Answers
    from ml_platform.serving.records.audit_notes import AuditNotes
    from ml_platform.serving.records.feedback import REVIEW, FeedbackInbox, Said
    from ml_platform.serving.records.items import read_label
    from ml_platform.serving.records.outbox import Outbox
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
        queue = ReviewQueue(platform.lake, [case])
        if not answer and not skip:
            # What was looked up is many numbers that a person cannot judge.
            features = case.model_columns.keys() - case.examples.request.keys()
            found = queue.waiting(case.name, limit)
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
        outbox, notes = Outbox(platform.lake, [case]), AuditNotes(platform.settings, platform.lake)
        inbox = FeedbackInbox(
            platform.settings, read_serving_settings(), [case], notes,
            lambda _: _classes(platform, case),
        )  # fmt: skip
        answers, said = Answers(platform.lake, queue, inbox), Said(REVIEW, platform.person, "cli")
        is_new = False
        try:
            if answer:
                label = read_label(case, answer[1])
                is_new = answers.label(case.name, answer[0], label, said, corrects=correct)
            elif skip:
                is_new = answers.skip(case.name, skip, said)
        finally:
            # Lands it.
            inbox.close()
            notes.close()
            outbox.empty()
        notes.deliver()
        before = "" if is_new else ", as you said before"
        taken = f"{answer[0]} is {answer[1]}" if answer else f"{skip} has no answer"
        typer.echo(f"{taken}{before}")


def _classes(platform: "Platform", case: "UseCase") -> frozenset[str]:
    """What a label can be by the versions that serve and are tried; none where none serves."""
    from datetime import UTC, datetime

    from ml_platform import registry

    champion = registry.champion_if_any(registry.history(platform.lake, case), datetime.now(UTC))
    if champion is None:
        return frozenset()
    tried = registry.tried_now(registry.rollouts(platform.lake, case))
    versions = {champion, *([tried.version] if tried else [])}
    loaded = [platform.registry.load(case, version) for version in versions]
    return frozenset(name for version in loaded for name in version.classes)
