"""The command that tries retraining policies out on history."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.replay import Decision, PolicyComparison
    from ml_platform.spec.use_case import UseCase

PANEL = "Models"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def replay(
    use_case: UseCaseName,
    since: Annotated[str, typer.Option("--from", help="First partition, by its key.")],
    until: Annotated[str, typer.Option("--to", help="Last partition, included.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="never, schedule, every:30d, drift, performance; joined by +. Repeat it."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG to draw; by default in reports.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """Live through history under several retraining policies, and see which is worth it.

    Nothing is written to the lake or the registry; the page about retraining shows the newest.
    """
    from ml_platform.cli.platform import opened, range_of
    from ml_platform.replay import Policy, as_document, default_policies, draw_replay
    from ml_platform.replay import replay as replayed
    from ml_platform.replay.document import PREFIX
    from ml_platform.spec.ranges import BETWEEN

    with opened() as platform:
        case = platform.case(use_case)
        window_range = range_of(platform, case, None, f"{since}{BETWEEN}{until}")
        asked = policy or default_policies(case)
        policies = [Policy.parse(text, case) for text in dict.fromkeys(asked)]
        threads = platform.settings.threads
        comparison = replayed(platform.lake, case, window_range, policies, threads=threads)
        folder = platform.settings.reports / case.name
        file = picture or folder / f"{PREFIX}{since}_{until}.png"
        draw_replay(comparison, file)
        document = {**as_document(case, comparison), "picture": str(file)}
        # For the page about retraining.
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{PREFIX}{since}_{until}.json").write_text(json.dumps(document))
    if as_json:
        print(json.dumps(document, indent=1))
    else:
        _show(case, comparison, file)


def _show(case: "UseCase", comparison: "PolicyComparison", file: Path) -> None:
    from ml_platform.cli.printing import show_line, show_table

    metric = comparison.metric
    header = (
        "policy", metric, "regret", "95% of it", "by partition", "trained", "promoted",
        "refused", "seconds",
    )  # fmt: skip
    rows = [
        (
            standing.policy,
            f"{standing.value:.4f}",
            f"{standing.regret:.4f}",
            "{:+.4f} to {:+.4f}".format(*standing.regret_bounds) if standing.regret else "best",
            f"{standing.mean:.4f}",
            str(standing.trainings),
            str(standing.count("promoted")),
            str(standing.count("refused")),
            f"{standing.seconds:.1f}",
        )
        for standing in comparison.standings
    ]
    show_table(header, rows)
    for standing in comparison.standings:
        made = [_shown(case, decision) for decision in standing.decisions[1:]]
        show_line(f"{standing.policy}: {', '.join(made) or 'nothing after the first model'}")
    windows = len(comparison.best.by_window)
    show_line(
        f"{metric} is that of {comparison.rows} labelled predictions in {windows} partitions, all "
        "together; regret is bounded by the paired bootstrap over partitions; seconds are those of "
        "fitting and predicting"
    )
    show_line(comparison.answer)
    show_line(f"picture: {file}")


def _shown(case: "UseCase", decision: "Decision") -> str:
    return f"{case.calendar.key(decision.cutoff)} {decision.decision} ({decision.cause})"
