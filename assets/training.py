"""Models by cutoff, and the gate that promotes or refuses them."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from ml_platform.orchestrator.parameters import described_by
from ml_platform.registry import history
from ml_platform.settings import Settings
from ml_platform.spec.reach import steps_before
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.storage import Commit, Lake
from ml_platform.training import (
    Decided,
    TrainingReport,
    decide,
    describe_improvement,
    train,
)
from ml_platform_dagster.assets.metadata import asset_key, common, described, rounded_figures
from ml_platform_dagster.assets.partition_events import (
    CheckOutcome,
    checked,
    materialized,
    withheld,
)
from ml_platform_dagster.assets.partitions import before_cutoff, cutoffs_of
from ml_platform_dagster.assets.pools import TRAINING
from ml_platform_dagster.resources import LakeResource, RegistryResource
from ml_platform_dagster.resources.reasons import (
    reasons_in,
    reasons_shown,
    training_sample,
    training_window,
)
from ml_platform_dagster.resources.versions import version_metadata

CHALLENGER_IS_BETTER = "challenger_is_better"
EXISTING = (
    "Any partition can be a cutoff, few are: see [those that exist]"
    "(?view=partitions&status=FAILED%2CMATERIALIZED%2CMATERIALIZING). Nothing is due for those "
    "that the page counts as missing."
)
"""In descriptions; the link sets the filter of the asset's own page."""
NEWEST_DECISIONS = 8


def build_training(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The model of a use case, partitioned by cutoff, and the promotions of its versions."""
    return [_build_model(use_case, settings), _build_promotions(use_case)]


def _build_model(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    spec = use_case.model
    inputs = [use_case.examples.source, "labels", *(feature_table(v) for v in use_case.model_views)]
    # By the windows that they reach: a month may be longer than 30 days, and shorter.
    longest = max(
        (spec.window, use_case.retrain.window or spec.window),
        key=lambda window: steps_before(use_case.calendar, window),
    )
    mapping = before_cutoff(use_case, longest)

    @dg.asset(
        key=asset_key(use_case, "model"),
        deps=[
            dg.AssetDep(asset_key(use_case, table), partition_mapping=mapping) for table in inputs
        ],
        partitions_def=cutoffs_of(use_case),
        # A cutoff is one training; only those that were trained on are materialised.
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        code_version=use_case.code_version,
        description=described(
            f"A model version for each cutoff that was trained on: the start of the partition. "
            f"It saw what was known before; the last {spec.holdout} of its {spec.window} judge it. "
            f"{EXISTING}",
            (use_case.folder / use_case.model_file).read_text(encoding="utf-8"),
            "python",
        ),
        metadata=version_metadata(use_case, settings),
        output_required=False,
        pool=TRAINING,
        **common(use_case, "scikitlearn", "mlflow"),
    )
    def model(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        commit = Commit(context.run.run_id, use_case.code_version, f"{use_case.name}/model")
        reports = {
            key: train(
                lake.lake,
                registry.registry,
                use_case,
                use_case.calendar.window_listed(key).start,
                commit,
                tags={**registry.tags(context.run.run_id), **reasons_in(context.run.tags)},
                window=training_window(context.run.tags),
                sample=training_sample(context.run.tags),
            )
            for key in context.partition_keys
        }
        yield from materialized(
            context,
            {
                key: {**_described(report), **reasons_shown(context.run.tags)}
                for key, report in reports.items()
            },
        )

    return model


def _build_promotions(use_case: UseCase) -> dg.AssetsDefinition:
    metric, gate = use_case.model.metric, use_case.gate
    key = asset_key(use_case, "promotions")
    partitions = cutoffs_of(use_case)

    @dg.asset(
        key=key,
        deps=[asset_key(use_case, "model")],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        code_version=use_case.code_version,
        description=(
            f"The promotion gate: champion and challenger scored on the same labelled rows that "
            f"neither was fitted on, compared by `{metric}`. Promoted, refused, or left to a "
            f"person to approve, the figures are kept. {EXISTING}"
        ),
        check_specs=[
            dg.AssetCheckSpec(
                CHALLENGER_IS_BETTER,
                asset=key,
                partitions_def=partitions,
                blocking=True,
                description=(
                    f"`{metric}` is better by more than {gate.min_improvement:g} with "
                    f"{gate.confidence:.0%} confidence, and nothing that is guarded is worse than "
                    "allowed. A refusal is an answer: it stops what comes after it in the run, "
                    "and the run does not fail."
                ),
            )
        ],
        output_required=False,
        **common(use_case, "ducklake", "mlflow"),
    )
    def promotions(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        commit = Commit(
            context.run.run_id, use_case.code_version, f"{use_case.name}/promotions",
            described_by(context.run.tags),
        )  # fmt: skip
        decisions: dict[str, Decided] = {}
        for key in context.partition_keys:
            cutoff = use_case.calendar.window_listed(key).start
            version = registry.registry.trained_at(use_case, cutoff)
            decisions[key] = decide(
                lake.lake, registry.registry, use_case, version, commit, decided_by="promotion gate"
            )
        why = {**reasons_shown(context.run.tags), **_newest(lake.lake, use_case)}
        rows = {key: _decided(use_case, decided, why) for key, decided in decisions.items()}
        refused = all(each.promotion.decision == "refused" for each in decisions.values())
        yield from (withheld if refused else materialized)(context, rows)
        verdicts = {key: _gate_verdict(decided) for key, decided in decisions.items()}
        yield from checked(context, CHALLENGER_IS_BETTER, verdicts)

    return promotions


def _described(report: TrainingReport) -> dict[str, Any]:
    pictures = "\n\n".join(_inline(name, image) for name, image in report.plots.items())
    return {
        "model version": report.version,
        **({"warning": "\n\n".join(report.warnings)} if report.warnings else {}),
        "plots": dg.MetadataValue.md(pictures),
        **rounded_figures(report.metrics),
        "snapshot": report.snapshot,
        "digest": report.digest,
    }


def _decided(use_case: UseCase, decided: Decided, why: Mapping[str, Any]) -> dict[str, Any]:
    promotion = decided.promotion
    interval = describe_improvement(use_case, promotion.figures)
    pictures = "\n\n".join(_inline(name, image) for name, image in decided.pictures.items())
    return {
        "decision": promotion.decision,
        "model version": promotion.version,
        "reason": promotion.reason,
        **({"improvement interval": dg.MetadataValue.md(interval)} if interval else {}),
        **({"comparison": dg.MetadataValue.md(pictures)} if pictures else {}),
        **why,
        **rounded_figures(dict(sorted(promotion.figures.items(), key=lambda f: _place(f[0])))),
    }


def _newest(lake: Lake, use_case: UseCase) -> dict[str, Any]:
    """The newest decisions of the promotion history, one a line, in Markdown."""
    lines = [
        f"| {use_case.calendar.key(use_case.calendar.window_at(each.effective_from))} "
        f"| {each.version} | {each.outcome} | {each.decided_by} |"
        for each in reversed(history(lake, use_case)[-NEWEST_DECISIONS:])
    ]
    heading = ["| from partition | version | decision | by |", "| --- | --- | --- | --- |"]
    return {"newest decisions": dg.MetadataValue.md("\n".join([*heading, *lines]))}


def _place(figure: str) -> int:
    """Where a figure of the gate stands: what decided, then both models, constants, segments."""
    first = ("improvement", "challenger_", "champion_", "confidence", "min_improvement")
    return next((n for n, prefix in enumerate(first) if figure.startswith(prefix)), len(first))


def _gate_verdict(decided: Decided) -> CheckOutcome:
    promotion = decided.promotion
    waits = "waits for a person, see `ml-platform approvals`: "
    return CheckOutcome(
        passed=promotion.decision != "refused",
        description=f"{waits if promotion.decision == 'waiting' else ''}{promotion.reason}",
        metadata={"decision": promotion.decision, "model version": promotion.version},
        # An error would fail the run, and with it raise the alarms of a failure.
        severity=dg.AssetCheckSeverity.WARN,
    )


def _inline(name: str, image: bytes) -> str:
    return f"![{name}](data:image/png;base64,{base64.b64encode(image).decode()})"
