"""Rides of customers, one of whom is planted: all that is kept of him can be recognised."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from pydantic import SecretStr

from ml_platform.access import Action, Audit
from ml_platform.backfill.local_run import compute
from ml_platform.features import open_online_store, publish
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import computed_tables
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.served import Deployment
from tests.trips_use_case import COMMIT, MODEL, at, days

CUSTOMER = "zqx-planted-customer-7431"
NOTE = "xyzzy-unmistakable-note-90210"
RIDES = (770_000_111_222, 770_000_111_223, 770_000_111_224)
"""Two rides that the model is trained on, and one that is predicted."""
BROKEN = 770_000_111_225
"""A ride that breaks the contract."""
PLANTED = (NOTE, *map(str, (*RIDES, BROKEN)))

SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  rides:
    files: "rides/*.csv"
    event_time: started_at
    key: [ride]
    columns:
      ride: BIGINT
      started_at: TIMESTAMPTZ
      customer: VARCHAR
      city: VARCHAR
      distance: DOUBLE
      delay: DOUBLE
      note: VARCHAR
    rules: ["distance > 0"]
  tickets:
    files: "tickets/*.FORMAT"
    event_time: sold_at
    key: [ride]
    columns: {ride: BIGINT, sold_at: TIMESTAMPTZ, price: DOUBLE}
features:
  history: {entity: [customer], lookback: 7d, ttl: 7d}
  ticket: {entity: [ride], lookback: 1d, ttl: 7d}
examples: {source: rides, entity: [ride], columns: [city, distance]}
label: {task: binary, horizon: 1d}
model: {build: "model:build", window: 10d, holdout: 3d, metric: roc_auc, min_rows: 20}
monitoring: {reference_rows: 2000}
serving: {log: {}, review: {uncertain: [0.0, 1.0]}}
"""
QUERIES = {
    "features/history.sql": "SELECT customer, started_at AS event_time, "
    "distance / 2 AS usual FROM rides\n",
    "features/ticket.sql": "SELECT ride, sold_at AS event_time, price FROM tickets\n",
    "labels.sql": "SELECT ride, started_at AS event_time, delay > 15 AS label, "
    "started_at + INTERVAL 6 HOUR AS known_at FROM rides\n",
}


def write_rides(root: Path, tickets: str = "jsonl", log: str = "{}") -> UseCase:
    folder = root / "rides"
    (folder / "features").mkdir(parents=True, exist_ok=True)
    spec = SPEC.replace("FORMAT", tickets).replace("{log: {}", f"{{log: {log}")
    (folder / "use_case.yaml").write_text(spec)
    for name, query in QUERIES.items():
        (folder / name).write_text(query)
    (folder / "model.py").write_text(MODEL.format(kind="Classifier"))
    return load_use_case(folder)


def rides(first: int, last: int, a_day: int = 12) -> pd.DataFrame:
    """Rides of twenty customers, with those of the planted one in between."""
    rng = np.random.default_rng(3)
    count = (last - first + 1) * a_day
    midnights = pd.to_datetime([at(day) for day in range(first, last + 1)])
    minutes = np.tile(np.arange(a_day) * 100, last - first + 1)
    started = midnights.repeat(a_day) + pd.to_timedelta(minutes, unit="m")
    distance = rng.uniform(1, 60, count)
    city = rng.choice(["Albany", "Boston", "Chicago"], count)
    frame = pd.DataFrame(
        {
            "ride": np.arange(count) + 10_000,
            "started_at": started,
            "customer": [f"customer-{n:02}-qvw" for n in rng.integers(0, 20, count)],
            "city": city,
            "distance": distance,
            "delay": distance / 3 + 10 * (city == "Boston") + rng.normal(0, 4, count) - 5,
            "note": "",
        }
    )
    planted = frame.iloc[:4].assign(
        ride=[*RIDES, BROKEN],
        started_at=[at(11, 3), at(14, 5), at(25, 7), at(12, 2)],
        customer=CUSTOMER,
        city="Boston",
        distance=[41.25, 17.5, 33.75, -1.0],
        note=NOTE,
    )
    return pd.concat([frame, planted]).sort_values("started_at", kind="stable")


def made(
    root: Path,
    tickets: str = "jsonl",
    log: str = "{}",
    log_secret: SecretStr | None = None,
    **changes: object,
) -> Deployment:
    """A deployment whose rides were landed, corrected, trained on, predicted, asked for, judged."""
    chosen = Settings(data=root / "data", use_cases=root).model_copy(update=changes)
    use_case = write_rides(root, tickets, log)
    lake, registry = Lake(chosen), Registry(chosen)
    found = Deployment(root, chosen, lake, registry, use_case)
    landed = rides(1, 26)
    land(found, "rides", "march.csv", landed)
    sold = landed[["ride"]].assign(sold_at=landed["started_at"], price=landed["distance"] * 1.5)
    land(found, "tickets", f"march.{tickets}", sold)
    everything = days(1, 26)
    for table in (*use_case.sources, "history_features", "ticket_features", "labels"):
        if table not in LOGGED_SOURCES:
            compute(lake, registry, use_case, table, everything, "test")
    version = train(lake, registry, use_case, at(20), COMMIT, tags={}).version
    decide(lake, registry, use_case, version, COMMIT, decided_by="ada")
    for table in computed_tables(use_case):
        if table in {"predictions", "drift_report", "performance_report"}:
            compute(lake, registry, use_case, table, days(20, 26), "test")
    # Later than the predictions: what the row was before is kept as a version of it.
    land(found, "rides", "corrected.csv", landed[landed["ride"] == RIDES[2]].assign(distance=35.5))
    for table in ("rides", "history_features", "labels", "predictions"):
        compute(lake, registry, use_case, table, days(25, 26), "test")
    store = open_online_store(chosen)
    for view in use_case.features:
        publish(lake, store, use_case, view, days(24, 26))
    store.close()
    ask(found, landed, log_secret=log_secret)
    for source in LOGGED_SOURCES[::2]:
        ingest(lake, use_case, source, days(25, 25), COMMIT)
    Audit(lake).record(Action("ada", "cli", "deploy", "rides", "all", {}), COMMIT)
    return found


def land(found: Deployment, source: str, name: str, rows: pd.DataFrame) -> Path:
    """Put rows into the landing folder."""
    file = Path(found.settings.landing_uri) / "rides" / source / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        rows.to_parquet(file, index=False)
    elif name.endswith(".jsonl"):
        rows.to_json(file, orient="records", lines=True, date_format="iso")
    else:
        rows.to_csv(file, index=False)
    return file


def ask(found: Deployment, landed: pd.DataFrame, **serving: object) -> None:
    """Have the planted ride and another one predicted by key, and say how both came out."""
    day = landed[(landed["started_at"] >= at(25)) & (landed["started_at"] < at(26))]
    chosen = day[(day["ride"] == RIDES[2]) | (day["ride"] % 7 == 0)]
    rows = json.loads(
        chosen[["ride", "started_at", "customer", "city", "distance"]].to_json(
            orient="records", date_format="iso"
        )
    )
    with found.client(**serving) as client:
        answer = client.post("/predict/rides", json={"rows": rows})
        assert answer.status_code == 200, answer.text
        items = [
            {"prediction_id": each["id"], "label": True} for each in answer.json()["predictions"]
        ]
        given = client.post("/feedback/rides", json={"items": items})
        assert given.status_code < 300, given.text


@dataclass(frozen=True)
class Kept:
    """Everything by which something of a customer can be recognised."""

    customer: str
    rides: frozenset[int]
    predictions: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()
    """What stands nowhere but in what is kept of him."""

    @classmethod
    def of(cls, lake: Lake, customer: str, *texts: str) -> "Kept":
        """Of what the lake holds now."""
        with lake.cursor() as cursor:
            rides = cursor.execute(
                "SELECT ride FROM lake.rides.rides WHERE customer = ?", [customer]
            ).fetchall()
            named = frozenset(ride for (ride,) in rides) | (
                {BROKEN} if customer == CUSTOMER else set()
            )
            asked = cursor.execute("SELECT prediction_id, ride FROM lake.rides.requests").fetchall()
        ids = frozenset(prediction for prediction, ride in asked if ride in named)
        return cls(customer, frozenset(named), ids, (customer, *ids, *texts))

    def is_in(self, row: dict[str, Any]) -> bool:
        """Whether a row of some table is of him."""
        return (
            row.get("customer") == self.customer
            or row.get("ride") in self.rides
            or row.get("prediction_id") in self.predictions
            or self.customer in str(row.get("record"))
        )

    def in_bytes(self, *folders: Path) -> list[str]:
        """Files in whose bytes one of the texts stands."""
        return [
            f"{path}: {text}"
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            for content in (path.read_bytes(),)
            for text in self.texts
            if text.encode() in content
        ]

    def in_columns(self, *folders: Path) -> list[str]:
        """Parquet files in whose values one of the texts stands, however they are compressed."""
        where = " OR ".join(f"contains(CAST(t AS VARCHAR), '{text}')" for text in self.texts)
        with duckdb.connect() as connection:
            return [
                str(path)
                for folder in folders
                for path in sorted(folder.rglob("*.parquet"))
                # Of a killed writer there may be the first bytes of a file.
                if path.stat().st_size > len(b"PAR1")
                and connection.execute(f"SELECT 1 FROM '{path}' t WHERE {where} LIMIT 1").fetchone()
            ]


def history(lake: Lake, kept: Kept, until: int) -> dict[tuple[int, str], list[str]]:
    """Every row that is not of a customer, by snapshot and table."""
    found: dict[tuple[int, str], list[str]] = {}
    with lake.cursor() as cursor:
        # A table that came later is not to be looked for among Python's names.
        cursor.execute("SET python_enable_replacements = false")
        names = cursor.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        ).fetchall()
        for snapshot in range(1, until + 1):
            for schema, table in names:
                at_snapshot = f'lake."{schema}"."{table}" AT (VERSION => {snapshot})'
                try:
                    rows = cursor.execute(f"SELECT t FROM (FROM {at_snapshot}) t").fetchall()
                except duckdb.Error as error:
                    if "does not exist" not in str(error):
                        raise
                    continue
                left = [str(row) for (row,) in rows if not kept.is_in(row)]
                found[snapshot, f"{schema}.{table}"] = sorted(left)
    return found
