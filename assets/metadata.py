"""What a table looks like in the Dagster UI: columns, where they come from, descriptions."""

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import dagster as dg

from ml_platform.settings import Settings
from ml_platform.spec.lineage import KeptLineage
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Table


def asset_key(use_case: UseCase, table: str) -> dg.AssetKey:
    """`<use case>/<table>`."""
    return dg.AssetKey([use_case.name, table])


def table_metadata(table: Table) -> dict[str, Any]:
    """Schema and name of a table, known before anything is computed."""
    columns = [
        dg.TableColumn(name, kind, tags={"key": ""} if name in table.order else None)
        for name, kind in table.columns.items()
    ]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": f"lake.{table.schema}.{table.name}",
    }


def lineage_of(use_case: UseCase, settings: Settings) -> KeptLineage:
    """From which columns of its sources the queries of a use case compute theirs."""
    return KeptLineage(use_case, settings.derived)


def column_lineage(
    use_case: UseCase, sources: Mapping[str, tuple[tuple[str, str], ...]]
) -> dict[str, Any]:
    """Column lineage metadata; sources: column → (table, column) pairs it depends on."""
    deps = {
        name: [dg.TableColumnDep(asset_key(use_case, table), column) for table, column in pairs]
        for name, pairs in sources.items()
        if pairs
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}


def rounded(value: float) -> float:
    """A figure as people read it: four decimals, more where there would be less than four digits.

    >>> [rounded(each) for each in (0.72231438, 0.0157340178, 1234.56789, 12)]
    [0.7223, 0.01573, 1234.5679, 12.0]
    """
    magnitude = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return round(float(value), max(4, 3 - magnitude))


def rounded_figures(figures: Mapping[str, float]) -> dict[str, float | int]:
    """Figures by name, in their order; counts stay whole numbers.

    >>> rounded_figures({"rows": 5996.0, "roc_auc": 0.72231438})
    {'rows': 5996, 'roc_auc': 0.7223}
    """
    return {
        name: int(value) if float(value).is_integer() else rounded(value)
        for name, value in figures.items()
    }


def described(text: str, query: str = "", language: str = "sql") -> str:
    """A description in Markdown, with the query that computes the asset."""
    return f"{text}\n\n```{language}\n{query}\n```" if query else text


class Shared(TypedDict):
    """Arguments of `dg.asset`."""

    group_name: str
    owners: list[str]
    kinds: set[str]
    dagster_type: Any


def common(use_case: UseCase, *kinds: str) -> Shared:
    """Arguments that all assets of a use case share."""
    return {
        "group_name": use_case.name,
        "owners": list(use_case.owners),
        "kinds": set(kinds),
        # Tables are written by the platform itself; there is nothing for an IO manager to store.
        "dagster_type": dg.Nothing,
    }
