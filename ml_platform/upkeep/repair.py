"""Bringing back what lost data files held: from a backup, or computed again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.backfill.computation_history import LOST
from ml_platform.backfill.local_run import compute
from ml_platform.monitoring.drift import drift_table
from ml_platform.monitoring.segments import segments_table
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.spec.tables import tables_of
from ml_platform.spec.use_case import EXPLANATIONS, UseCase, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.changes import Range
from ml_platform.storage.computations import note
from ml_platform.storage.forgetting import forget_files
from ml_platform.storage.known_files import METADATA, WINDOW_START, KnownFile, known_files
from ml_platform.storage.lost_files import LostFile
from ml_platform.storage.stored_files import StoredFiles
from ml_platform.storage.tables import naive_utc
from ml_platform.upkeep.archive import Archive
from ml_platform.upkeep.parts import ARTIFACTS, LAKE, Places

Say = Callable[[str], None]
KEPT_BY_USE = frozenset(
    {"landings", "ingestions", "computations", "emptied_windows", "leak_checks"}
)
"""Tables in which commands note what they have seen; what they lack they look at again."""
QUARANTINE = "quarantine"


@dataclass(frozen=True)
class RepairPlan:
    """What can be done about lost files."""

    windows: Mapping[str, Mapping[str, frozenset[Window]]]
    """What is computed again, by use case and table, each after those that it reads."""
    forgotten: tuple[LostFile, ...]
    """Files that the newest snapshot need not read any more."""
    irreplaceable: tuple[LostFile, ...]
    """Files of tables that nothing can compute: decisions, keys, the audit."""
    old: tuple[LostFile, ...]
    """Files that only older snapshots read, which remain unreadable there."""


def find_changed(
    cursor: duckdb.DuckDBPyConnection, archive: Archive, lake: StoredFiles
) -> list[LostFile]:
    """Data files whose bytes are others than in the newest backup; each of them is read.

    A bit that flips in an unencrypted file often is only another number.
    """
    held = {entry.name: entry for entry in archive.backup().of(LAKE)}
    found = []
    for file in known_files(cursor, lake.root):
        entry = held.get(_name(lake, file))
        is_whole = entry is not None and lake.size(entry.name) == entry.bytes
        if entry is not None and is_whole and lake.content(entry.name) != entry.content:
            found.append(LostFile(file, "has other bytes than when it was backed up"))
    return found


def fetch_lost(
    archive: Archive, lost: Sequence[LostFile], lake: StoredFiles, *, dry_run: bool = False
) -> list[LostFile]:
    """Write lost files as a backup holds them; those that none holds.

    Raises BackupRefused where the backup itself is damaged.
    """
    wanted = {_name(lake, each.file): each for each in lost}
    for name in reversed(archive.names if wanted else []):
        held = {entry.name: entry for entry in archive.backup(name).of(LAKE)}
        for path in wanted.keys() & held.keys():
            if not dry_run:
                archive.fetch(held[path], lake, path)
            del wanted[path]
    return list(wanted.values())


def fetch_artifacts(archive: Archive, settings: Settings, *, dry_run: bool = False) -> int:
    """Write artifacts of models that are missing or changed, as the newest backup holds them."""
    place = Places.of(settings).folders.get(ARTIFACTS)
    if place is None:
        return 0
    files = StoredFiles(archive.files.cursor, place)
    sizes = files.sizes()
    count = 0
    for entry in archive.backup().of(ARTIFACTS):
        is_there = sizes.get(entry.name) == entry.bytes
        if not is_there or files.content(entry.name) != entry.content:
            count += 1
            if not dry_run:
                archive.fetch(entry, files, entry.name)
    return count


def plan_repair(use_cases: Mapping[str, UseCase], lost: Iterable[LostFile]) -> RepairPlan:
    """What can be done about lost files that no backup holds; nothing is written."""
    windows: dict[str, dict[str, set[Window]]] = {}
    forgotten, irreplaceable, old = [], [], []
    for each in lost:
        use_case = use_cases.get(each.file.schema)
        if not each.file.is_current:
            old.append(each)
        elif use_case is not None and each.file.table in KEPT_BY_USE:
            forgotten.append(each)
        elif use_case is not None and (held := _windows(use_case, each.file)):
            forgotten.append(each)
            for table in _made_with(use_case, each.file.table):
                windows.setdefault(use_case.name, {}).setdefault(table, set()).update(held)
        else:
            irreplaceable.append(each)
    ordered = {
        name: {t: frozenset(found[t]) for t in tables_of(use_cases[name]) if t in found}
        for name, found in windows.items()
    }
    return RepairPlan(ordered, tuple(forgotten), tuple(irreplaceable), tuple(old))


def forget(
    lake: Lake,
    use_cases: Mapping[str, UseCase],
    plan: RepairPlan,
    files: Sequence[LostFile],
    run: str,
) -> None:
    """Take files out of the newest snapshot, after noting that their windows are to be computed.

    In this order: whoever is killed in between leaves windows that the next backfill computes.
    """
    if not files:
        return
    with lake.cursor() as cursor:
        for name, tables in plan.windows.items():
            for table, windows in tables.items():
                reasons = {naive_utc(window.start): "" for window in windows}
                commit = Commit(run, LOST, f"{name}/{table}: data files lost")
                begun_at = lake.snapshot(cursor)
                note(lake, cursor, use_cases[name], table, begun_at, reasons, commit)
    forget_files(lake, [each.file for each in files], Commit(run, LOST, "data files lost"))


@dataclass(frozen=True)
class Missed:
    """Rows that did not come back."""

    table: str
    """With its schema."""
    rows: int

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows of {self.table} did not come back: what they were made of is gone "
            "as well, such as landing files that were removed; only a backup has them"
        )


class RowCounts:
    """How many rows the tables have that lost files belong to, before and after a repair."""

    def __init__(self, lake: Lake, files: Sequence[LostFile]) -> None:
        self.lake = lake
        self.held: dict[tuple[str, str], list[KnownFile]] = {}
        for each in files:
            if each.file.first is not None and each.file.is_current:
                self.held.setdefault((each.file.schema, each.file.table), []).append(each.file)
        self.lost = {name: self._lost(known) for name, known in self.held.items()}
        self.before: dict[tuple[str, str], int] = {}

    def begin(self) -> None:
        """Count what is left, once the files are no longer read."""
        self.before = self._count()

    def missed(self) -> list[Missed]:
        """What has not come back since."""
        now = self._count()
        found = []
        for name, lost in self.lost.items():
            lacking = lost - (now[name] - self.before[name])
            if lacking > 0:
                found.append(Missed(".".join(name), lacking))
        return found

    def _lost(self, files: Sequence[KnownFile]) -> int:
        ids = ", ".join({str(file.id) for file in files})
        with self.lake.cursor() as cursor:
            row = cursor.execute(
                f"""SELECT sum(f.record_count - coalesce(d.delete_count, 0))
                FROM {METADATA}.ducklake_data_file f
                LEFT JOIN {METADATA}.ducklake_delete_file d
                    ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
                WHERE f.data_file_id IN ({ids})"""
            ).fetchone()
        assert row is not None
        return int(row[0] or 0)

    def _count(self) -> dict[tuple[str, str], int]:
        found = {}
        with self.lake.cursor() as cursor:
            for (schema, table), files in self.held.items():
                first = min(file.first for file in files if file.first is not None)
                last = max(file.last for file in files if file.last is not None)
                row = cursor.execute(
                    f"""SELECT count(*) FROM lake.{quote(schema)}.{quote(table)}
                    WHERE {Range(first, last + datetime.resolution).holds(WINDOW_START)}"""
                ).fetchone()
                assert row is not None
                found[schema, table] = int(row[0])
        return found


def compute_again(
    lake: Lake,
    registry: Registry,
    use_cases: Mapping[str, UseCase],
    plan: RepairPlan,
    run: str,
    say: Say,
) -> None:
    """Compute the windows of a plan, of each table after those that it reads."""
    for name, tables in plan.windows.items():
        use_case = use_cases[name]
        for table, windows in tables.items():
            say(f"{name}/{table}: {len(windows):,} windows are computed again")
            for window_range in use_case.calendar.ranges(windows):
                compute(lake, registry, use_case, table, window_range, run)


def _name(lake: StoredFiles, file: KnownFile) -> str:
    return file.path.removeprefix(f"{lake.root}/")


def _made_with(use_case: UseCase, table: str) -> tuple[str, ...]:
    """The tables whose computation writes a table; none where nothing computes it."""
    if table == QUARANTINE:
        return tuple(use_case.sources)
    known = tables_of(use_case)
    if table in known:
        return (table,)
    if table == EXPLANATIONS:
        return ("predictions",)
    segments = {segments_table(use_case, live=live).name: live for live in (False, True)}
    if table in segments:
        report = drift_table(use_case, live=segments[table]).name
        return (report,) if report in known else ()
    return tuple(each for each in known if version_table(each) == table)


def _windows(use_case: UseCase, file: KnownFile) -> set[Window]:
    """Windows that may have rows in a file, of a table that is computed; else none."""
    if file.first is None or file.last is None or not _made_with(use_case, file.table):
        return set()
    calendar = use_case.calendar
    first, last = calendar.window_stored(file.first), calendar.window_stored(file.last)
    return set(calendar.windows(Window(first.start, last.end)))
