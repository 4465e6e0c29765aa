"""Backup, restore, new keys and erasure of a year of hourly windows, beside copies by hand.

`python -m benchmarks backups`
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from benchmarks.counts import SENSORS, START, declare, land
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.erasure import Deployment, erase, named_entity
from ml_platform.features import compute_features, compute_labels, open_online_store
from ml_platform.registry import Registry
from ml_platform.registry.tracking import open_client
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.upkeep.backup import make_backup
from ml_platform.upkeep.rekeying import rekey
from ml_platform.upkeep.restore import restore

COMMIT = Commit("benchmark", "benchmark")
HOURS, FEW_HOURS = 8_760, 1_000
WEEK = 7 * 24
"""Hours in each of the ranges that are written one by one."""
ERASED = 7


@dataclass(frozen=True)
class _World:
    """A deployment with its landing folder within its data folder."""

    lake: Lake
    use_case: UseCase

    @property
    def data(self) -> Path:
        return self.lake.settings.data

    def fill(self, first: int, last: int) -> None:
        """Sources, features and labels of some hours, a week in a transaction."""
        for hour in range(first, last, WEEK):
            window_range = Window(
                START + timedelta(hours=hour), START + timedelta(hours=min(hour + WEEK, last))
            )
            ingest(self.lake, self.use_case, "counts", window_range, COMMIT)
            compute_features(self.lake, self.use_case, "recent", window_range, COMMIT)
            compute_labels(self.lake, self.use_case, window_range, COMMIT)


def run(bench: Bench) -> Result:
    """Time each command once, on a plain lake and on an encrypted one, and copies of the folder."""
    hours = HOURS if bench.days is None else FEW_HOURS
    use_case, clock = declare(bench.folder), Clock()
    world = _world(bench.folder / "plain", use_case, hours, encrypted=False)
    world.fill(0, hours - WEEK)
    size = _bytes(world.data)
    target = str(bench.folder / "backups")
    clock.time("copy", lambda: shutil.copytree(world.data, bench.folder / "copy"))
    clock.time("backup", lambda: make_backup(world.lake, target, _quiet))
    clock.time("nothing new", lambda: make_backup(world.lake, target, _quiet))
    world.fill(hours - WEEK, hours)
    clock.time("a week more", lambda: make_backup(world.lake, target, _quiet))
    world.lake.close()
    elsewhere = Settings(data=bench.folder / "restored", use_cases=world.lake.settings.use_cases)
    clock.time("restore", lambda: restore(elsewhere, target, None, _quiet))
    _time_erasure(clock, world)

    sealed = _world(bench.folder / "sealed", use_case, hours, encrypted=True)
    sealed.fill(0, hours)
    clock.time("copy of the encrypted one", lambda: shutil.copytree(
        sealed.data, bench.folder / "sealed_copy"))  # fmt: skip
    clock.time("rekey", lambda: rekey(sealed.lake, COMMIT, datetime.now(UTC), _quiet))
    sealed.lake.close()
    lines = (
        _line("backup of everything, digests verified", clock, "backup", "copy"),
        _line("backup again, nothing new", clock, "nothing new", "copy"),
        _line("backup again, a week more", clock, "a week more", "copy"),
        _line("restore of everything", clock, "restore", "copy"),
        _line("erase a sensor, every file read at the end", clock, "erase", "copy"),
        _line("erase --dry-run", clock, "look", "copy"),
        _line("rekey of an encrypted lake", clock, "rekey", "copy of the encrypted one"),
    )
    notes = (
        f"{hours:,} hourly windows over {SENSORS} sensors, written a week at a time: sources, "
        f"features and labels on a SQLite catalog, {size / 2**20:,.0f} MiB with landing files. "
        "Other is a copy of the data folder by shutil, which nothing may write to meanwhile. Once "
        "each.",
    )
    return Result("Backup, restore, erasure, new keys", lines, notes)


def _world(folder: Path, use_case: UseCase, hours: int, *, encrypted: bool) -> _World:
    settings = Settings(data=folder / "data", use_cases=use_case.folder.parent, encrypted=encrypted)
    land(Path(settings.landing_uri) / use_case.name, hours)
    open_client(settings)
    return _World(Lake(settings), use_case)


def _time_erasure(clock: Clock, world: _World) -> None:
    settings, use_case = world.lake.settings, world.use_case
    entity = named_entity(use_case, [f"sensor={ERASED}"])
    for name, only_looks in (("look", True), ("erase", False)):
        registry, store = Registry(settings), open_online_store(settings)
        where = Deployment(Lake(settings), registry, store, {use_case.name: use_case})
        look_or_erase = partial(erase, where, use_case, entity, COMMIT, _quiet, dry_run=only_looks)
        done = clock.time(name, look_or_erase)
        assert not done.problems, done.problems
        where.lake.close()


def _line(what: str, clock: Clock, ours: str, other: str) -> Line:
    seconds, by_hand = clock.median(ours), clock.median(other)
    return Line(what, f"{seconds:.2f} s", f"{by_hand:.2f} s", seconds / by_hand)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _quiet(_said: str) -> None: ...
