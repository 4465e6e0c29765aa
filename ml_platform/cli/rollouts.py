"""The command that tries a version beside the champion, and shows how it does."""

from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.registry import Rollout
    from ml_platform.registry.rollouts import Mode
    from ml_platform.serving.versions.comparison import Side, VersionComparison
    from ml_platform.spec.use_case import UseCase

PANEL = "Decisions"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def rollout(
    use_case: UseCaseName,
    version: Annotated[int | None, typer.Argument(min=1, help="Version to try.")] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="It predicts everything; nobody is answered by it.")
    ] = False,
    canary: Annotated[
        float | None, typer.Option(help="Share of the entities that it answers, such as 0.1.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="The champion answers alone again.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the table.")] = "",
) -> None:
    """Try a version beside the champion on live traffic; by itself, show how the two compare."""
    from datetime import UTC, datetime

    from ml_platform.cli.platform import opened
    from ml_platform.errors import RolloutRefused
    from ml_platform.registry import Rollout, decide_rollout, rollouts
    from ml_platform.serving.versions.comparison import comparisons

    asked = sum((shadow, canary is not None, end))
    if asked > 1 or (version is None) != (asked == 0):
        raise RolloutRefused("give a version and one of --shadow, --canary SHARE, --end")
    with opened() as platform:
        case = platform.case(use_case)
        if version is not None:
            if not end:
                # Refused here where there is no such version, not only by the service.
                platform.registry.tags(case, version)
            mode: Mode = "shadow" if shadow else "ended" if end else "canary"
            decided = Rollout(
                version, mode, canary or 0.0, platform.person, reason, datetime.now(UTC)
            )
            action = platform.action(
                "rollout", case.name, f"version {version}", mode=mode, share=f"{canary or 0.0:g}",
                reason=reason,
            )  # fmt: skip
            decide_rollout(platform.lake, case, decided, platform.commit(case, "rollouts", action))
        show_rollouts(case, rollouts(platform.lake, case))
        if version is None:
            show_comparisons(case, comparisons(platform.lake, case))


def show_rollouts(case: "UseCase", decisions: list["Rollout"]) -> None:
    """Every decision about what is tried."""
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli.printing import console, moment_in

    if not decisions:
        console().print(f"{case.name}: no version was ever tried beside the champion")
        return
    table = Table(
        "version", "mode", "share", "decided at", "by", "reason", box=None, pad_edge=False
    )
    for each in decisions:
        when = moment_in(case.calendar.timezone, each.decided_at)
        share = f"{each.share:.0%}" if each.mode == "canary" else ""
        table.add_row(
            str(each.version), each.mode, share, when, escape(each.decided_by), escape(each.reason)
        )  # fmt: skip
    console().print(table)


def show_comparisons(case: "UseCase", found: list["VersionComparison"]) -> None:
    """Both sides of what was tried beside each other; the service writes it every 15 seconds."""
    from rich.table import Table

    from ml_platform.cli.printing import console
    from ml_platform.serving.versions.comparison import SIDES

    for comparison in found:
        pair = comparison.pair
        console().print(
            f"\n{case.name}: version {pair.candidate} as {pair.mode} beside version {pair.champion}"
        )
        table = Table(
            "", "version", "requests", "errors", "left out", "mean prediction", "p50", "p95",
            box=None, pad_edge=False,
        )  # fmt: skip
        for side in SIDES:
            is_champion = side == "champion"
            table.add_row(
                side,
                str(pair.champion if is_champion else pair.candidate),
                str(comparison.requests(side)),
                "" if is_champion else str(comparison.errors),
                "" if is_champion else str(comparison.dropped),
                _number(comparison.mean(side)),
                _latency(comparison, side, 0.5),
                _latency(comparison, side, 0.95),
            )
        console().print(table)
        console().print(
            f"mean absolute difference {_number(comparison.difference)}, "
            f"correlation {_number(comparison.correlation)}"
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _latency(comparison: "VersionComparison", side: "Side", quantile: float) -> str:
    bound = comparison.latency(side, quantile)
    return "" if bound is None else f"≤ {bound * 1000:.1f} ms"
