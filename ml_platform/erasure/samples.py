"""Rows of an entity in the reference samples of model versions.

A sample has the model's columns alone. Which of its rows are the entity's is found by assembling
the entity's examples as they were trained on, at the snapshot of the version.
"""

import pandas as pd

from ml_platform.erasure.lake_rows import columns_of
from ml_platform.erasure.matching import Matching
from ml_platform.errors import PlatformError
from ml_platform.features import join_sql
from ml_platform.registry import Registry, TrainedVersion
from ml_platform.registry.reference_samples import take_from_reference
from ml_platform.spec.queries import quote
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake

IS_GONE = "__is_gone"


def erase_from_samples(
    lake: Lake,
    registry: Registry,
    matching: Matching,
    windows: set[Window],
    *,
    dry_run: bool,
) -> tuple[dict[int, int], list[str]]:
    """Take the entity's rows out of the samples; how many by version, and what was not possible.

    windows: those with examples of the entity.
    """
    found: dict[int, int] = {}
    problems: list[str] = []
    for version in registry.trained(matching.use_case):
        try:
            own = _as_trained(lake, matching, version, windows)

            def is_gone(reference: pd.DataFrame, own: pd.DataFrame = own) -> "pd.Series[bool]":
                return _among(matching, reference, own)

            count = take_from_reference(
                registry, matching.use_case, version.version, is_gone, dry_run=dry_run
            )
        except PlatformError as error:
            problems.append(f"reference sample of version {version.version}: {error}")
            continue
        if count:
            found[version.version] = count
    return found, problems


def _as_trained(
    lake: Lake, matching: Matching, version: TrainedVersion, windows: set[Window]
) -> pd.DataFrame:
    """The entity's examples with what a version was given of them."""
    inside = [
        window for window in windows
        if utc(window.start) < utc(version.cutoff)
        and (version.trained_from is None or utc(window.end) > utc(version.trained_from))
    ]  # fmt: skip
    if not inside:
        return pd.DataFrame()
    starts, ends = ({getattr(w, name) for w in inside} for name in ("start", "end"))
    covered = Window(min(starts, key=utc), max(ends, key=utc))
    # One join over all of them: each window of its own would take almost as long.
    sql = f"({join_sql(matching.cursor, lake, matching.use_case, covered, version.snapshot)})"
    where = matching.of_columns(columns_of(matching.cursor, sql))
    if where is None:
        return pd.DataFrame()
    own: pd.DataFrame = (
        matching.cursor.execute(f"FROM {sql} WHERE {where}").to_arrow_table().to_pandas()
    )
    return own


def _where(matching: Matching, frame: pd.DataFrame) -> str | None:
    matching.cursor.register("__described", frame)
    rows = matching.cursor.execute("DESCRIBE FROM __described").fetchall()
    matching.cursor.unregister("__described")
    return matching.of_columns({name: kind for name, kind, *_ in rows})


def _among(matching: Matching, reference: pd.DataFrame, own: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of a sample are those of the entity, or say so themselves."""
    columns = [c for c in matching.use_case.model_columns if c in reference and c in own]
    gone = pd.Series(False, index=reference.index)
    if len(own) and columns:
        mine = own[columns].drop_duplicates().assign(**{IS_GONE: True})
        gone |= reference[columns].merge(mine, on=columns, how="left")[IS_GONE].notna().to_numpy()
    named = {*matching.entity.columns} <= {*reference.columns}
    if named:
        matching.cursor.register("__sample", reference.reset_index(names="__place"))
        where = _where(matching, reference)
        places = matching.cursor.execute(
            f"SELECT {quote('__place')} FROM __sample WHERE {where}"
        ).fetchall()
        matching.cursor.unregister("__sample")
        gone[[place for (place,) in places]] = True
    return gone
