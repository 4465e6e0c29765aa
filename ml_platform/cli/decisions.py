"""Commands about which version serves: the gate, a person's answer, rollback, the history."""

from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.cli.platform import Platform
    from ml_platform.rollback import RollbackPlan
    from ml_platform.spec.use_case import UseCase

PANEL = "Decisions"
commands = typer.Typer()

Version = Annotated[int, typer.Argument(min=1, help="Number of a model version.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


@commands.command(rich_help_panel=PANEL)
def promote(
    use_case: UseCaseName,
    version: Annotated[
        int | None,
        typer.Argument(min=1, help="By default the newest that nothing was decided about."),
    ] = None,
) -> None:
    """Let the promotion gate decide whether a version serves from its cutoff on."""
    from ml_platform import registry
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.training import decide

    with opened() as platform:
        case = platform.case(use_case)
        if version is None:
            decisions = registry.history(platform.lake, case)
            version = registry.newest_undecided(platform.registry, case, decisions)
            printing.show_line(f"version {version} is the newest that nothing was decided about")
        # What the gate decides stands in the history, which is written together with this.
        action = platform.action("promote", case.name, f"version {version}")
        commit = platform.commit(case, "promotions", action)
        decided = decide(
            platform.lake, platform.registry, case, version, commit, decided_by=platform.person
        )
        printing.show_promotions(case, [decided.promotion])
        if decided.verdict is None:
            printing.show_line(
                f"version {version} was decided about before; nothing has changed. `ml-platform "
                f"history {case.name}` shows who serves, `ml-platform rollback {case.name} --to "
                f"{version} --reason …` lets it serve again"
            )
        else:
            printing.show_serving(case, decided.promotion)


@commands.command(rich_help_panel=PANEL)
def approvals(
    use_case: Annotated[str | None, typer.Argument(metavar="[USE_CASE]")] = None,
) -> None:
    """Show the challengers that passed the gate and wait for a person, with their figures."""
    from ml_platform import registry
    from ml_platform.cli import decision_tables
    from ml_platform.cli.platform import opened

    with opened() as platform:
        for case in platform.cases(use_case):
            open_ones = registry.waiting(platform.lake, case)
            for promotion in open_ones:
                decision_tables.show_comparison(case, promotion)
            if not open_ones:
                decision_tables.show_none_waits(case)


@commands.command(rich_help_panel=PANEL)
def approve(use_case: UseCaseName, version: Version, reason: Reason) -> None:
    """Let a challenger that waits serve."""
    _answer(use_case, version, approve=True, reason=reason)


@commands.command(rich_help_panel=PANEL)
def reject(use_case: UseCaseName, version: Version, reason: Reason) -> None:
    """Refuse a challenger that waits."""
    _answer(use_case, version, approve=False, reason=reason)


def _answer(use_case: str, version: int, *, approve: bool, reason: str) -> None:
    from ml_platform import registry
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened

    with opened() as platform:
        case = platform.case(use_case, anywhere=True)
        what = "approve" if approve else "reject"
        action = platform.action(what, case.name, f"version {version}", reason=reason)
        given = registry.answer(
            platform.lake, platform.registry, case, version, approve=approve, reason=reason,
            decided_by=platform.person, commit=platform.commit(case, "promotions", action),
        )  # fmt: skip
        printing.show_promotions(case, [given])


@commands.command(rich_help_panel=PANEL)
def rollback(
    use_case: UseCaseName,
    reason: Reason,
    to: Annotated[
        int | None, typer.Option(min=1, help="Version; by default the champion before this one.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Partition; by default the first that this one serves."),
    ] = None,
    serving: Annotated[
        int | None,
        typer.Option(min=1, help="Version that serves now; refused where another one does."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Recompute the partitions here, without Dagster.")
    ] = False,
) -> None:
    """Let an earlier version serve again; shows first which partitions are recomputed."""
    from ml_platform.cli import decision_tables, printing
    from ml_platform.cli.platform import moment_of, opened
    from ml_platform.rollback import after_decision, plan_rollback, roll_back

    with opened() as platform:
        case = platform.case(use_case)
        plan = plan_rollback(
            platform.lake, platform.registry, case, decided_by=platform.person, reason=reason,
            to=to, since=moment_of(case, since) if since else None, serving=serving,
        )  # fmt: skip
        decision_tables.show_plan(case, plan)
        if not yes:
            typer.confirm("Recompute them?" if plan.is_decided else "Roll back?", abort=True)
        if plan.is_decided and here:
            # It was decided before: the history needs no second row.
            platform.audit("recompute", case.name, f"version {plan.promotion.version}")
            _recompute(platform, case, plan)
            return
        changed = f"version {plan.promotion.version}"
        action = platform.action("roll back", case.name, changed, reason=reason)
        commit = platform.commit(case, "promotions", action)
        made = roll_back(platform.lake, platform.registry, case, plan, commit)
        printing.show_promotions(case, [made])
        plan = after_decision(platform.lake, case, plan)
        if here:
            _recompute(platform, case, plan)
        else:
            decision_tables.show_next(case, plan)


@commands.command(rich_help_panel=PANEL)
def history(use_case: UseCaseName) -> None:
    """Show which version served from when on, and why."""
    from ml_platform import registry
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened

    with opened() as platform:
        case = platform.case(use_case, anywhere=True)
        printing.show_promotions(case, registry.history(platform.lake, case))


def _recompute(platform: "Platform", case: "UseCase", plan: "RollbackPlan") -> None:
    from ml_platform.cli import printing
    from ml_platform.cli.decision_tables import progress_of
    from ml_platform.rollback import recompute

    commits = {name: platform.commit(case, name) for name, _ in plan.affected.tables}
    with progress_of(case, plan) as advance:
        recomputed = recompute(
            platform.lake, platform.registry, case, plan.affected, commits, progress=advance
        )
    for scored in recomputed.predictions:
        printing.show_scores(case, scored)
    for drift in recomputed.drift_report:
        printing.show_drift(case, drift)
    for performance in recomputed.performance_report:
        printing.show_performance(case, performance)
    for published in recomputed.published:
        printing.show_publication(case, published)
