"""The deployment of a kill campaign: how it begins, what can be killed, and what is wrong."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pandas as pd

from benchmarks.overlaps import FILES, NAME
from ml_platform.access import Audit
from ml_platform.errors import PlatformError
from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import (
    Registry,
    answer,
    champion_periods,
    differences,
    history,
    point_alias,
    waiting,
)
from ml_platform.registry.mirrors import ALIAS
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.tables import SNAPSHOT
from ml_platform.training import decide, train

DAYS = 14
ROWS_A_FILE = 30
COMMIT = Commit("kills", "0", "kills")
VERSIONED = (NAME, "city_features", "pace_features", "labels")
RECOMPUTED = (*VERSIONED, "quarantine", *map(version_table, VERSIONED))
TABLES = (*RECOMPUTED, "predictions", "drift_report", "performance_report")
LATER_BY = 6 * 3600
"""Seconds between the arrivals of two files."""
STAMPS = (SNAPSHOT, "snapshot", "scored_at", "labels_known_by")
Row = tuple[str, tuple[float, ...]]
TOLERANCE = 1e-9
TRAINED_AT = 10
"""Versions are trained at cutoffs from this day on."""


@dataclass(frozen=True)
class Found:
    """What a deployment holds at one moment, and what is wrong with it."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "landed rows neither ingested nor quarantined",
        "rows that are there twice",
        "aliases that differ from the history",
        "files that are referenced and missing",
    )
    fingerprints: Mapping[str, str]
    """By table and window, a digest of its rows."""
    wrong: Mapping[str, int] = field(default_factory=dict)


def write_use_case(folder: Path) -> None:
    """The use case that everything is done with."""
    for name, text in FILES.items():
        file = folder / "use_cases" / NAME / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def use_case(folder: Path) -> UseCase:
    """The use case of a campaign."""
    return load_use_case(folder / "use_cases" / NAME)


def begin(folder: Path) -> None:
    """All days that are done, and a version that serves."""
    case, lake = use_case(folder), Lake(Settings())
    for day in range(DAYS):
        land(folder, day, day)
    _compute(lake, case)
    registry = Registry(lake.settings)
    for day in (TRAINED_AT - 1, TRAINED_AT):
        version = train(lake, registry, case, _day(case, day).start, COMMIT, tags={}).version
        decide(lake, registry, case, version, COMMIT, decided_by="gate")
        answer(lake, registry, case, version, approve=True, decided_by="begin", reason="first",
               commit=COMMIT)  # fmt: skip
    point_alias(lake, registry, case)
    score(lake, registry, case, _all(case), COMMIT)
    report_drift(lake, registry, case, _all(case), COMMIT)
    report_performance(lake, case, _all(case), COMMIT, now=datetime.now(UTC))
    lake.close()


def ready(folder: Path, drawn: float, day: int, number: int) -> tuple[str, list[str], Any]:
    """Land a file and see that a command has something to do: what, the command, what is held.

    drawn: in [0, 1), which of the commands that are possible.
    """
    case, lake = use_case(folder), Lake(Settings())
    commands = _possible(lake, case)
    what = commands[int(drawn * len(commands))]
    land(folder, day, number)
    command = _command(lake, case, what, number)
    lake.close()
    return what, command, vars(look(folder))


def _possible(lake: Lake, case: UseCase) -> list[str]:
    """Commands that have something to do now."""
    decisions = history(lake, case)
    found = ["ingest", "ingest", "features", "labels", "score", "drift", "performance", "publish"]
    decided = {p.version for p in decisions}
    versions = Registry(lake.settings).versions(case)
    found.append("promote" if set(versions) - decided else "train")
    served = [period.version for period in champion_periods(decisions)]
    if asked := waiting(lake, case):
        found.append("reject")
        # One that was compared with another champion is refused, killed or not.
        if asked[0].figures.get("champion_version") in served[-1:]:
            found.append("approve")
    if len(served) > 1:
        found.append("rollback")
    return found


def _command(lake: Lake, case: UseCase, what: str, number: int) -> list[str]:
    """A command, after what it needs."""
    match what:
        case "train":
            day = TRAINED_AT + number % (DAYS - TRAINED_AT)
            return ["train", NAME, "--cutoff", _key(case, day)]
        case "promote":
            return ["promote", NAME]
        case "approve" | "reject":
            return [what, NAME, str(waiting(lake, case)[0].version), "--reason", "looked at"]
        case "rollback":
            return ["rollback", NAME, "--reason", "odd", "--yes"]
    if what != "ingest":
        ingest(lake, case, NAME, _all(case), COMMIT)
    return [what, NAME, "--range", f"{_key(case, 0)}...{_key(case, DAYS - 1)}"]


def look(folder: Path) -> Found:
    """What the deployment holds, and what is wrong with it where nothing is under way."""
    case, lake = use_case(folder), Lake(Settings())
    registry = Registry(lake.settings)
    with lake.cursor() as cursor:
        there = lake.tables(cursor, NAME)
        fingerprints = {
            f"{table} {start}": f"{rows} {total}"
            for table in TABLES
            if table in there
            for start, rows, total in cursor.execute(_prints_sql(cursor, table)).fetchall()
        }
        twice = cursor.execute(
            f"SELECT count(*) - count(DISTINCT (window_start, trip)) FROM lake.{NAME}.{NAME}"
        ).fetchall()[0][0]
        lost = _lost(lake, cursor, case)
        missing = _missing(lake, cursor)
    mirrors = differences(lake, registry, case)
    wrong = dict(
        zip(
            Found.NAMES,
            # The online store is brought up to new features by the next command.
            (lost, twice, sum(d.mirror == ALIAS for d in mirrors), missing),
            strict=True,
        )
    )
    lake.close()
    return Found(fingerprints, wrong)


def differences_to_undisturbed(folder: Path) -> tuple[int, int]:
    """Windows that hold other rows than those of a lake that nobody disturbed; audit breaks."""
    case, lake = use_case(folder), Lake(Settings())
    _compute(lake, case)
    breaks = 0
    try:
        Audit(lake).verify()
    except PlatformError:
        breaks = 1
    calm_settings = Settings.model_construct(
        **{
            **Settings().model_dump(),
            "data": folder / "undisturbed",
            "landing": lake.settings.landing_uri,
            "catalog": None,
            "lake_files": None,
        }
    )
    calm = Lake(calm_settings)
    _compute(calm, case)
    differing = 0
    for table in RECOMPUTED:
        ours, theirs = _rows(lake, table), _rows(calm, table)
        differing += sum(
            not _alike(ours.get(window, []), theirs.get(window, []))
            for window in ours.keys() | theirs.keys()
        )
    lake.close()
    calm.close()
    return differing, breaks


def land(folder: Path, day: int, number: int) -> None:
    """A file of one day: new trips, corrections of the day's first ones, and a row of no use."""
    settings, case = Settings(), use_case(folder)
    rng = np.random.default_rng(number)
    own = 1_000_000 * (day + 1) + 100 * number + np.arange(ROWS_A_FILE)
    own[:3] = 1_000_000 * (day + 1) + np.arange(3)
    distance = rng.uniform(1, 60, ROWS_A_FILE)
    distance[-1] = -1
    minutes = rng.integers(0, 22 * 60, ROWS_A_FILE)
    minutes[:3] = (60, 120, 180)
    start = _day(case, day).start.astimezone(UTC)
    rows = pd.DataFrame(
        {
            "trip": own,
            "started_at": [(start + timedelta(minutes=int(m))).isoformat() for m in minutes],
            "city": rng.choice(["Albany", "Boston", "Chicago"], ROWS_A_FILE),
            "distance": distance.round(3),
            "delay": (distance / 3 + rng.normal(0, 6, ROWS_A_FILE)).round(3),
        }
    )
    landing = Path(settings.landing_uri) / NAME
    landing.mkdir(parents=True, exist_ok=True)
    hidden = landing / f".{number}.part"
    hidden.write_text(rows.to_csv(index=False))
    os.utime(hidden, (_arrival(number), _arrival(number)))
    hidden.rename(landing / f"{number:06d}.csv")


def _arrival(number: int) -> int:
    """When a file lands, in seconds since 1970: later ones correct what earlier ones brought.

    What begins was there before its days; files after it arrive while these go by, so that some of
    their corrections come before a row was known and others days after it. A file that lost to one
    that was ingested before it would never have been the truth, unless both are ingested at once.
    """
    if number < DAYS:
        return 1_700_000_000 + number
    return 1_709_300_000 + (number - DAYS) * LATER_BY


def _compute(lake: Lake, case: UseCase) -> None:
    ingest(lake, case, NAME, _all(case), COMMIT)
    for view in case.features:
        compute_features(lake, case, view, _all(case), COMMIT)
    compute_labels(lake, case, _all(case), COMMIT)


def _prints_sql(cursor: duckdb.DuckDBPyConnection, table: str) -> str:
    stamped = f"SELECT * EXCLUDE (window_start) FROM lake.{NAME}.{table}"
    described = cursor.execute(f"DESCRIBE {stamped}").fetchall()
    names = ", ".join(f'"{name}"' for name, *_ in described if name not in STAMPS)
    return (
        f"SELECT window_start, count(*), sum(hash(row({names}))::HUGEINT) "
        f"FROM lake.{NAME}.{table} GROUP BY 1"
    )


def _lost(lake: Lake, cursor: duckdb.DuckDBPyConnection, case: UseCase) -> int:
    """Rows of files that are noted as ingested, and that are nowhere."""
    rows = cursor.execute(
        f"SELECT _file, count(DISTINCT _row) FROM (SELECT _file, _row FROM lake.{NAME}.{NAME} "
        f"UNION ALL SELECT _file, _row FROM lake.{NAME}.quarantine) GROUP BY 1"
    ).fetchall()
    return sum(abs(count - ROWS_A_FILE) for _, count in rows)


def _missing(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> int:
    """Files that the newest snapshot reads and that are not there."""
    names = cursor.execute(
        f"""SELECT path FROM {METADATA}.ducklake_data_file WHERE end_snapshot IS NULL
        UNION SELECT path FROM {METADATA}.ducklake_delete_file WHERE end_snapshot IS NULL"""
    ).fetchall()
    found = cursor.execute(
        "SELECT file FROM glob(?)", [f"{lake.settings.lake_files_uri.rstrip('/')}/**"]
    ).fetchall()
    there = {path.rpartition("/")[2] for (path,) in found}
    return sum(path.rpartition("/")[2] not in there for (path,) in names)


def _alike(ours: list[Row], theirs: list[Row]) -> bool:
    """Whether rows are the same, floats within what their order of addition may change."""
    if [texts for texts, _ in ours] != [texts for texts, _ in theirs]:
        return False
    return all(
        math.isclose(one, other, rel_tol=TOLERANCE)
        for (_, numbers), (_, others) in zip(ours, theirs, strict=True)
        for one, other in zip(numbers, others, strict=True)
    )


def _rows(lake: Lake, table: str) -> dict[datetime, list[Row]]:
    """By window its rows, sorted: what is no float as text, and the floats."""
    held: dict[datetime, list[Row]] = {}
    with lake.cursor() as cursor:
        if table not in lake.tables(cursor, NAME):
            return held
        relation = cursor.execute(f"SELECT * FROM lake.{NAME}.{table}")
        names = [column[0] for column in relation.description]
        for row in relation.fetchall():
            kept = [v for name, v in zip(names, row, strict=True) if name not in STAMPS]
            texts = " ".join(repr(v) for v in kept if not isinstance(v, float))
            floats = tuple(v for v in kept if isinstance(v, float))
            held.setdefault(row[names.index("window_start")], []).append((texts, floats))
    return {window: sorted(rows) for window, rows in held.items()}


def _day(case: UseCase, number: int) -> Window:
    return case.calendar.window_at(case.calendar.start + timedelta(days=number, hours=1))


def _key(case: UseCase, number: int) -> str:
    return case.calendar.key(_day(case, number))


def _all(case: UseCase) -> Window:
    return Window(_day(case, 0).start, _day(case, DAYS - 1).end)
