"""A model version's card: what it is, what it was made of, how good it was and who decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from ml_platform.registry.champion_periods import served_ranges
from ml_platform.registry.models import Registry
from ml_platform.registry.promotions import Promotion, history
from ml_platform.registry.versions import ModelVersion
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

IMPORTANCES = 20
"""Columns that the Markdown lists, those that matter most."""
RECORDED: Mapping[str, str] = {
    "mlflow.source.git.commit": "commit",
    "git.dirty": "uncommitted changes",
    "code_version": "digest of the use case's folder",
    "training_data.sha256": "SHA-256 of the training data",
    "requirements.sha256": "SHA-256 of the locked requirements",
    "fingerprint": "fingerprint of everything that decides the model",
    "training.sample": "sampled",
    "threads": "threads",
    "dagster_run_id": "Dagster run",
}
"""Tags of a version that a card shows, with what they are called."""


@dataclass(frozen=True)
class Compared:
    """One metric of both models on the gate's rows."""

    metric: str
    challenger: float
    champion: float | None
    """None where there was no champion to compare with."""


@dataclass(frozen=True)
class Card:
    """Everything that a person asks of a model version."""

    use_case: UseCase
    model: ModelVersion
    recorded: Mapping[str, str]
    """What was recorded about how it came about, by what it is called."""
    holdout: Mapping[str, float]
    """Metrics on rows that it was not fitted on, before its cutoff."""
    rows_fitted: int | None
    rows_holdout: int | None
    decisions: tuple[Promotion, ...]
    """All about this version, in order."""
    served: tuple[tuple[datetime, datetime | None], ...]
    """Ranges of event time; without an end it serves now."""
    gate: tuple[Compared, ...] = ()
    """On the rows that the gate judged both by."""
    gate_rows: int | None = None
    champion: int | None = None
    """Version that it was compared with."""
    improvement: tuple[float, float, float] | None = None
    """By the metric that the gate judged by then, with the bounds of its interval."""
    confidence: float | None = None
    segments: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    """Improvement and rows by segment."""

    @property
    def estimator(self) -> str:
        """Class of the estimator; of a pipeline, those of its steps."""
        steps = getattr(self.model.estimator, "steps", None)
        parts = [step for _, step in steps] if steps else [self.model.estimator]
        return ", ".join(type(part).__name__ for part in parts)

    @property
    def importances(self) -> list[tuple[str, float]]:
        """Columns that it was fitted on, those that matter most first."""
        return sorted(self.model.importances.items(), key=lambda each: (-each[1], each[0]))


def read_card(lake: Lake, registry: Registry, use_case: UseCase, version: int) -> Card:
    """The card of a version; raises ModelNotFound where there is none."""
    model = registry.load(use_case, version)
    tags = registry.tags(use_case, version)
    decisions = history(lake, use_case)
    own = tuple(each for each in decisions if each.version == version)
    figures: Mapping[str, float] = own[0].figures if own else {}
    metrics = dict(model.metrics)
    named = {k.removeprefix("holdout_"): v for k, v in metrics.items() if k.startswith("holdout_")}
    return Card(
        use_case,
        model,
        {name: tags[tag] for tag, name in RECORDED.items() if tag in tags},
        named,
        _whole(metrics.get("rows_fitted")),
        _whole(metrics.get("rows_holdout")),
        own,
        _served(decisions, version),
        tuple(_compared(figures)),
        _whole(figures.get("rows")),
        _whole(figures.get("champion_version")),
        _improvement(figures),
        figures.get("confidence"),
        _segments(figures),
    )


def describe_version(lake: Lake, registry: Registry, use_case: UseCase, version: int) -> None:
    """Show the card of a version that has just been judged as its description in MLflow."""
    card = read_card(lake, registry, use_case, version)
    tags = {}
    for compared in card.gate:
        if compared.metric == use_case.model.metric:
            tags[f"gate {compared.metric}"] = f"{compared.challenger:.4f}"
            if compared.champion is not None:
                tags[f"champion {card.champion} {compared.metric}"] = f"{compared.champion:.4f}"
    shown = {**decision_tags(card.decisions[-1]), **tags}
    # Until when it serves is decided later, about another version.
    registry.describe(use_case, version, shown, card_markdown(replace(card, served=())))


def decision_tags(decision: Promotion) -> dict[str, str]:
    """What MLflow shows of a decision beside the version: the history stays the truth."""
    return {
        "decision": decision.outcome,
        "decided by": decision.decided_by,
        "reason": decision.reason,
        "serves from": decision.effective_from.isoformat() if decision.serves else "never",
    }


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _served(
    decisions: Sequence[Promotion], version: int
) -> tuple[tuple[datetime, datetime | None], ...]:
    return tuple(
        (period.since, end) for period, end in served_ranges(decisions) if period.version == version
    )


def _compared(figures: Mapping[str, float]) -> list[Compared]:
    names = [n.removeprefix("challenger_") for n in figures if n.startswith("challenger_")]
    return [Compared(n, figures[f"challenger_{n}"], figures.get(f"champion_{n}")) for n in names]


def _improvement(figures: Mapping[str, float]) -> tuple[float, float, float] | None:
    names = ("improvement", "improvement_lower", "improvement_upper")
    if not all(name in figures for name in names):
        return None
    value, lower, upper = (figures[name] for name in names)
    return value, lower, upper


def _segments(figures: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    return {
        name.removeprefix("segment "): (value, int(figures.get(f"rows {name[8:]}", 0)))
        for name, value in figures.items()
        if name.startswith("segment ")
    }


def card_markdown(card: Card) -> str:
    """The card as Markdown, as it stands in MLflow and in a repository."""
    case, model = card.use_case, card.model
    zone = case.calendar.timezone

    def day(moment: datetime) -> str:
        return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}"

    lines = [
        f"# {case.name}, version {model.version}",
        "",
        case.description,
        "",
        f"- estimator: {card.estimator}; task: {case.label.task}",
        f"- owners: {', '.join(case.owners) or 'none declared'}",
        f"- fitted on {day(model.trained_from)} to {day(model.trained_until)}"
        + (f", {card.rows_fitted:,} rows" if card.rows_fitted else ""),
        f"- judged until its cutoff {day(model.cutoff)}"
        + (f", {card.rows_holdout:,} rows" if card.rows_holdout else ""),
        f"- snapshot of the lake: {model.snapshot}",
        *(
            f"- served from {day(since)} {f'to {day(until)}' if until else 'on, and serves now'}"
            for since, until in card.served
        ),
    ]
    if model.too_good:
        lines += ["", f"**Too good to be true:** {model.too_good}"]
    lines += ["", "## Metrics on held-out rows", "", "| metric | value |", "| --- | --- |"]
    lines += [f"| {name} | {value:.4f} |" for name, value in card.holdout.items()]
    if card.gate:
        against = f"champion {card.champion}" if card.champion else "no champion"
        rows = f"{card.gate_rows:,} rows" if card.gate_rows else "rows"
        lines += ["", f"## Against {against}, on the same {rows}", ""]
        lines += ["| metric | this version | champion |", "| --- | --- | --- |"]
        lines += [
            f"| {each.metric} | {each.challenger:.4f} | "
            f"{'' if each.champion is None else f'{each.champion:.4f}'} |"
            for each in card.gate
        ]
    if card.improvement:
        value, lower, upper = card.improvement
        level = f"{card.confidence:.0%}" if card.confidence else "the"
        lines += [
            "",
            f"Improvement by the metric of the gate: {value:+.4f}, between {lower:+.4f} and "
            f"{upper:+.4f} ({level} interval, paired bootstrap).",
        ]
    if card.segments:
        lines += ["", "| segment | improvement | rows |", "| --- | --- | --- |"]
        lines += [f"| {name} | {v:+.4f} | {n:,} |" for name, (v, n) in card.segments.items()]
    lines += ["", "## Decisions", ""]
    lines += [
        f"- {day(each.decided_at)}, {each.decided_by}: {each.outcome}. {each.reason}"
        for each in card.decisions
    ] or ["- none yet"]
    lines += ["", "## Columns", "", "| column | type | importance |", "| --- | --- | --- |"]
    shown = card.importances[:IMPORTANCES]
    lines += [f"| {name} | {model.columns.get(name, '')} | {v:.5f} |" for name, v in shown]
    if len(card.importances) > len(shown):
        lines += ["", f"and {len(card.importances) - len(shown)} more that matter less."]
    if model.left_out:
        names = ", ".join(sorted(model.left_out))
        lines += ["", f"Left out, since no fitted row had a value: {names}."]
    lines += ["", "## How it was made", ""]
    lines += [f"- {name}: `{value}`" for name, value in card.recorded.items()]
    return "\n".join(lines) + "\n"
