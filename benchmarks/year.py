"""The year of flights in a lake, prepared once and shared by the benchmarks."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.result import Bench
from demo.source_system import flight_days, land_flights
from ml_platform.features import compute_features, compute_labels
from ml_platform.registry import Promotion, Registry, record
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import train

USE_CASE = Path("use_cases/flight_delays")
COMMIT = Commit("benchmark", "benchmark")
CUTOFF_AFTER = timedelta(days=59)
"""The one model is trained at the end of February, or of what there is."""
LABELS_ARRIVE = timedelta(days=2)


@dataclass(frozen=True)
class Year:
    """A prepared lake: sources, features and labels of a range, one model that serves it all."""

    settings: Settings
    use_case: UseCase
    range: Window
    version: int

    @property
    def days(self) -> int:
        return len(list(self.use_case.calendar.windows(self.range)))

    @property
    def registry(self) -> Registry:
        return Registry(self.settings)

    @contextmanager
    def opened(self) -> Iterator[Lake]:
        """The lake, closed again at the end."""
        lake = Lake(self.settings)
        try:
            yield lake
        finally:
            lake.close()

    def copy(self, folder: Path) -> "Year":
        """A lake of its own with the same content; models stay where they are."""
        root = folder.resolve()
        shutil.copytree(self.settings.root / "lake", root / "lake")
        settings = Settings(data=root, mlflow_tracking_uri=self.settings.tracking_uri)
        catalog = sqlite3.connect(root / "lake" / "catalog.sqlite")
        with catalog:
            # Files are named relative to this path.
            catalog.execute(
                "UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path'",
                [settings.lake_files_uri],
            )
        catalog.close()
        return Year(settings, self.use_case, self.range, self.version)

    def drop(self, lake: Lake, *tables: str) -> None:
        """Remove tables, so that computing them again really writes."""
        with lake.cursor() as cursor:
            for table in tables:
                cursor.execute(f"DROP TABLE IF EXISTS lake.{self.use_case.name}.{table}")


def prepared(bench: Bench) -> Year:
    """The prepared year; recomputed where code or use case have changed since."""
    use_case = load_use_case(USE_CASE)
    start = use_case.calendar.start
    window_range = Window(start, start + timedelta(days=bench.days or 365))
    folder = bench.shared / ("year" if bench.days is None else f"days_{bench.days}")
    ready, state = folder / "ready.json", _state(window_range)
    if not ready.exists() or json.loads(ready.read_text(encoding="utf-8"))["state"] != state:
        shutil.rmtree(folder, ignore_errors=True)
        version = _prepare(Settings(data=folder), use_case, window_range)
        ready.write_text(json.dumps({"state": state, "version": version}), encoding="utf-8")
    version = json.loads(ready.read_text(encoding="utf-8"))["version"]
    return Year(Settings(data=folder), use_case, window_range, version)


def _prepare(settings: Settings, use_case: UseCase, window_range: Window) -> int:
    until = (window_range.end + LABELS_ARRIVE).date()
    landing = Path(settings.landing_uri) / use_case.name
    land_flights(landing, [day for day in flight_days() if day < until])
    lake, registry = Lake(settings), Registry(settings)
    try:
        recorded = Window(window_range.start, window_range.end + LABELS_ARRIVE)
        for source in use_case.sources:
            ingest(lake, use_case, source, recorded, COMMIT)
        for view in use_case.features:
            compute_features(lake, use_case, view, window_range, COMMIT)
        compute_labels(lake, use_case, window_range, COMMIT)
        cutoff = min(window_range.start + CUTOFF_AFTER, window_range.end)
        version = train(lake, registry, use_case, cutoff, COMMIT, tags={}).version
        # Effective before it was trained: here it only has to predict, not to be right.
        promotion = Promotion(
            version,
            window_range.start,
            datetime.now(UTC),
            "benchmark",
            "promoted",
            "serves the year",
        )
        record(lake, use_case, promotion, COMMIT)
    finally:
        lake.close()
    return version


def _state(window_range: Window) -> str:
    """Digest of everything that decides what is in the lake."""
    total = hashlib.sha256(str(window_range).encode())
    for root in (Path("ml_platform"), USE_CASE, Path("demo")):
        for file in sorted(root.rglob("*")):
            if file.suffix in {".py", ".sql", ".yaml"}:
                total.update(file.read_bytes())
    return total.hexdigest()
