"""Models by cutoff, and the gate that promotes or refuses them."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.events import materialized
from assets.metadata import asset_key, common, described
from assets.partitions import before_cutoff, cutoffs_of
from ml_platform.registry import Promotion
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.storage import Commit
from ml_platform.training import TrainingReport, decide, train
from resources import LakeResource, RegistryResource
from resources.reasons import reasons_in, reasons_shown, training_window


def build_training(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The model of a use case, partitioned by cutoff, and the promotions of its versions."""
    return [_build_model(use_case, settings), _build_promotions(use_case)]


def _build_model(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    spec = use_case.model
    inputs = [use_case.examples.source, "labels", *(feature_table(v) for v in use_case.model_views)]
    longest = max(spec.window, use_case.retrain.window or spec.window, key=lambda d: d.seconds)
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
            f"It saw what was known before; the last {spec.holdout} of its {spec.window} judge it.",
            (use_case.folder / use_case.model_file).read_text(encoding="utf-8"),
            "python",
        ),
        output_required=False,
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
                use_case.calendar.window(key).start,
                commit,
                tags={**registry.tags(context.run.run_id), **reasons_in(context.run.tags)},
                window=training_window(context.run.tags),
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
    metric = use_case.model.metric

    @dg.asset(
        key=asset_key(use_case, "promotions"),
        deps=[asset_key(use_case, "model")],
        partitions_def=cutoffs_of(use_case),
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        code_version=use_case.code_version,
        description=(
            f"The promotion gate: champion and challenger scored on the same labelled rows that "
            f"the challenger has not seen, compared by `{metric}`. Promoted or refused, the "
            "figures are kept."
        ),
        output_required=False,
        **common(use_case, "ducklake", "mlflow"),
    )
    def promotions(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        commit = Commit(context.run.run_id, use_case.code_version, f"{use_case.name}/promotions")
        decisions = {}
        for key in context.partition_keys:
            cutoff = use_case.calendar.window(key).start
            version = registry.registry.trained_at(use_case, cutoff)
            decided = decide(
                lake.lake, registry.registry, use_case, version, commit, decided_by="promotion gate"
            )
            decisions[key] = decided.promotion
        why = reasons_shown(context.run.tags)
        yield from materialized(context, {k: {**_decided(d), **why} for k, d in decisions.items()})

    return promotions


def _described(report: TrainingReport) -> dict[str, Any]:
    pictures = "\n\n".join(_inline(name, image) for name, image in report.plots.items())
    return {
        "model version": report.version,
        **_numbers(report.metrics),
        "snapshot": report.snapshot,
        "digest": report.digest,
        "plots": dg.MetadataValue.md(pictures),
    }


def _decided(promotion: Promotion) -> dict[str, Any]:
    return {
        "decision": promotion.decision,
        "model version": promotion.version,
        "reason": promotion.reason,
        **_numbers(promotion.figures),
    }


def _numbers(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}


def _inline(name: str, image: bytes) -> str:
    return f"![{name}](data:image/png;base64,{base64.b64encode(image).decode()})"
