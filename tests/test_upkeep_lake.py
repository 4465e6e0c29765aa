"""Upkeep of a lake loses nothing: every snapshot that something names is read back the same."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import SecretStr

from ml_platform.access import Action, Audit
from ml_platform.errors import InputsChanged, LakeError, RegistryUnavailable, TableNotFound
from ml_platform.settings import Settings
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Basis, Commit, Lake, Table, append, replace_windows
from ml_platform.storage.changes import Change, Range, read_changes
from ml_platform.storage.commits import expire
from ml_platform.storage.known_files import METADATA
from ml_platform.upkeep import compaction, expiry, keep_up, plan_upkeep
from ml_platform.upkeep import lake_upkeep as upkeep_module
from tests.examples import at_most
from tests.object_stores import s3_store

HOURS = Calendar.of(Cadence.hourly, datetime(2024, 1, 31, 20, tzinfo=UTC), "UTC")
START = HOURS.start.replace(tzinfo=None)
WHOLE = Range(START, START + timedelta(days=9))
LONGEST = 9
COMMIT = Commit("run", "code")
COLUMNS = {"seen_at": "TIMESTAMPTZ", "people": "BIGINT", "snapshot": "BIGINT"}
PREDICTIONS = Table("uc", "predictions", COLUMNS, ("seen_at",), stamps=("snapshot",))
COUNTS = Table("uc", "counts", {"seen_at": "TIMESTAMPTZ", "people": "BIGINT"}, ("seen_at",))
NOTES = Table("uc", "notes", {"number": "BIGINT"}, ("number",))
LATER = timedelta(days=3)


@dataclass
class World:
    """A lake that is written to, and what its snapshots held when something came to name them."""

    lake: Lake
    written: int = 0
    held: dict[int, dict[str, Any]] = field(default_factory=dict)

    def window(self, hour: int, length: int) -> Window:
        return Window(
            HOURS.start + timedelta(hours=hour), HOURS.start + timedelta(hours=hour + length)
        )

    def count(self, hour: int, length: int, people: int, rows: int = 3) -> None:
        """Make hours hold some rows each; no row at all where `rows` is 0."""
        self._replace(COUNTS, hour, length, f"{people} + s AS people", rows)

    def predict(self, hour: int, length: int) -> None:
        """Make hours hold predictions of what the lake holds now: they name its snapshot."""
        with self.lake.cursor() as cursor:
            snapshot = self.lake.snapshot(cursor)
        self.held[snapshot] = self.hashes(snapshot)
        self.written += 1
        select = f"{self.written} AS people, {snapshot} AS snapshot"
        self._replace(PREDICTIONS, hour, length, select, 1)

    def note(self) -> None:
        """Add a row to a table without windows."""
        self.written += 1
        with self.lake.cursor() as cursor:
            append(self.lake, cursor, NOTES, f"SELECT {self.written} AS number", COMMIT)

    def upkeep(self, keep: str = "1d") -> Any:
        changed = self.lake.settings.model_copy(update={"keep_snapshots": keep})
        self.lake.settings = changed
        return keep_up(self.lake, [], COMMIT, datetime.now(UTC) + LATER)

    def named(self) -> set[int]:
        """What the predictions that are there name."""
        with self.lake.cursor() as cursor:
            if "predictions" not in self.lake.tables(cursor, "uc"):
                return set()
            rows = cursor.execute("SELECT DISTINCT snapshot FROM lake.uc.predictions").fetchall()
        return {snapshot for (snapshot,) in rows}

    def hashes(self, snapshot: int | None = None) -> dict[str, Any]:
        """Rows of each table of the use case at a snapshot: how many, and a hash of them all."""
        found = {}
        with self.lake.cursor() as cursor:
            for table in ("counts", "predictions", "notes", "emptied_windows"):
                try:
                    relation = self.lake.relation(cursor, "uc", table, snapshot)
                except TableNotFound as error:
                    if "has expired" in str(error):
                        raise
                    continue
                found[table] = cursor.execute(
                    f"SELECT count(*), sum(hash(t)::HUGEINT) FROM (SELECT * FROM {relation}) t"
                ).fetchone()
        return found

    def changes(self) -> dict[str, dict[datetime, Change]]:
        """Since when windows hold what they hold, and what the commits of that said."""
        ranges = {"counts": WHOLE, "predictions": WHOLE}
        with self.lake.cursor() as cursor:
            return read_changes(self.lake, cursor, "uc", ranges, ("run_id", "code_version"))

    def files(self) -> list[Path]:
        return sorted(Path(self.lake.settings.lake_files_uri).rglob("*.parquet"))

    def _replace(self, table: Table, hour: int, length: int, select: str, rows: int) -> None:
        query = (
            f"SELECT TIMESTAMPTZ '{HOURS.start}' + to_hours(h::INTEGER) + to_minutes(s::INTEGER) "
            f"AS seen_at, {select} FROM range({hour}, {hour + length}) r(h), range({rows}) t(s)"
        )
        with self.lake.cursor() as cursor:
            replace_windows(
                self.lake, cursor, table, query, time="seen_at", calendar=HOURS,
                window_range=self.window(hour, length), commit=COMMIT,
            )  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        ("sqlite", False),
        pytest.param(("sqlite", True), marks=pytest.mark.slow),
        pytest.param(("postgres", False), marks=pytest.mark.slow),
        pytest.param(("postgres", True), marks=pytest.mark.slow),
        pytest.param(("s3", False), marks=pytest.mark.slow),
        pytest.param(("s3", True), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}{'-encrypted' * param[1]}",
)
def any_lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lake]:
    """A lake on each kind of catalog and store, which examples empty."""
    (where, encrypted), stack = request.param, ExitStack()
    changes: dict[str, Any] = {}
    if where == "postgres":
        server = request.getfixturevalue("postgres")
        database = f"upkeep_{'en' * encrypted}crypted"
        server.psql(f"CREATE DATABASE {database};")
        changes = {"catalog": f"postgres:{server.get_uri(database)}"}
    elif where == "s3":
        store = stack.enter_context(s3_store())
        changes = {
            "lake_files": f"{store.url}/upkeep/",
            "secrets_sql": SecretStr(store.secret_sql),
            "extensions": ("httpfs",),
        }
    lake = Lake(Settings(data=tmp_path_factory.mktemp("lake"), encrypted=encrypted, **changes))
    with stack:
        yield lake
        lake.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    lake = Lake(Settings(data=tmp_path))
    yield World(lake)
    lake.close()


def snapshots(lake: Lake) -> set[int]:
    with lake.cursor() as cursor:
        rows = cursor.execute(f"SELECT snapshot_id FROM {METADATA}.ducklake_snapshot").fetchall()
    return {snapshot for (snapshot,) in rows}


def age_snapshots(lake: Lake) -> None:
    """Make every snapshot that there is one of the day before yesterday."""
    then = datetime.now(UTC) - timedelta(days=2)
    with lake.cursor() as cursor:
        cursor.execute(f"UPDATE {METADATA}.ducklake_snapshot SET snapshot_time = '{then}'")


def test_what_nothing_names_expires_and_the_rest_reads_back(world: World) -> None:
    world.count(0, 3, 1)
    world.predict(0, 1)
    (named,) = world.named()
    for people in range(4):
        world.count(0, 2, 10 + people)
    before, changes = world.hashes(), world.changes()
    with world.lake.cursor() as cursor:
        newest = world.lake.snapshot(cursor)
    done = world.upkeep()
    assert done.problems == ()
    assert done.expired == newest + 1 - 2, "all from 0 on but the newest and what is named"
    assert {named, newest} <= snapshots(world.lake)
    assert done.expiry.reasons == {"it is the newest": 1, "uc.predictions": 1}
    assert world.hashes(named) == world.held[named]
    assert world.hashes() == before
    assert world.changes() == changes, "what commits said outlives their snapshots"
    with world.lake.cursor() as cursor, pytest.raises(TableNotFound, match="snapshot 4 has expir"):
        world.lake.relation(cursor, "uc", "counts", 4)


def test_without_a_retention_nothing_expires_and_a_dry_run_writes_nothing(world: World) -> None:
    world.count(0, 2, 1)
    world.count(0, 1, 2)
    before, files = snapshots(world.lake), world.files()
    plan = plan_upkeep(world.lake, [], datetime.now(UTC) + LATER)
    assert plan.expiry.expired == ()
    assert plan.expiry.reasons["no retention is set"] == len(before)
    world.lake.settings = world.lake.settings.model_copy(update={"keep_snapshots": "1d"})
    plan = plan_upkeep(world.lake, [], datetime.now(UTC) + LATER)
    assert set(plan.expiry.expired) == before - {max(before)}
    assert (snapshots(world.lake), world.files()) == (before, files)
    young = plan_upkeep(world.lake, [], datetime.now(UTC))
    assert young.expiry.reasons["younger than its retention"] == len(before)


def test_what_a_detail_of_the_audit_names_is_kept(world: World) -> None:
    world.count(0, 1, 1)
    with world.lake.cursor() as cursor:
        named = world.lake.snapshot(cursor)
    action = Action("ada", "cli", "look", "uc", "counts", {"snapshot": str(named)})
    Audit(world.lake).record(action, COMMIT)
    before = world.hashes(named)
    world.count(0, 1, 2)
    assert world.upkeep().expiry.reasons["the audit"] == 1
    assert world.hashes(named) == before


def test_what_comes_to_be_named_after_the_plan_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.count(0, 1, 1)
    world.count(0, 1, 2)

    def planned(*arguments: Any) -> Any:
        made = plan(*arguments)
        assert max(made.expired) + 1 == made.at
        # A row that a writer commits now, which names what is about to expire.
        world.written = made.at - 1
        select = f"0 AS people, {made.at - 1} AS snapshot"
        world._replace(PREDICTIONS, 0, 1, select, 1)
        return made

    plan = upkeep_module._planned
    monkeypatch.setattr(upkeep_module, "_planned", planned)
    world.upkeep()
    (named,) = world.named()
    assert named in snapshots(world.lake)


def test_an_upkeep_that_was_killed_before_anything_expired_is_continued(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.count(0, 1, 1)
    world.count(0, 1, 2)
    before, changes = snapshots(world.lake), world.changes()
    with monkeypatch.context() as patch:
        patch.setattr(expiry, "_expire", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.upkeep()
    assert before < snapshots(world.lake)
    assert world.changes() == changes
    done = world.upkeep()
    assert done.expiry.noted == len(before) - 1
    assert before.isdisjoint(snapshots(world.lake) - {max(before)})
    assert world.changes() == changes


def test_a_computation_whose_snapshot_expired_begins_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.count(0, 1, 1)
    with world.lake.cursor() as cursor:
        basis = Basis(world.lake, "uc", world.lake.snapshot(cursor))
        monkeypatch.setattr("ml_platform.storage.basis.SURELY_KEPT_SECONDS", 0)
        world.note()
        world.lake.transact(cursor, COMMIT, basis.require)
    world.upkeep()
    with world.lake.cursor() as cursor, pytest.raises(InputsChanged, match="have expired"):
        world.lake.transact(cursor, COMMIT, basis.require)


def test_files_are_merged_and_deleted_a_day_later(world: World) -> None:
    for hour in range(3):
        world.count(hour, 1, hour)
    world.note()
    world.note()
    before, files = world.hashes(), world.files()
    now = datetime.now(UTC)
    done = keep_up(world.lake, [], COMMIT, now)
    made = {each.before.name: (each.before.files, each.after.files) for each in done.compacted}
    assert made == {"uc.counts": (3, 1), "uc.notes": (2, 1)}
    assert done.cleaned.scheduled == ()
    assert set(files) < set(world.files()), "whoever began to read before still finds them"
    cleaned = keep_up(world.lake, [], COMMIT, now + LATER).cleaned
    assert len(cleaned.scheduled) == 5
    assert len(world.files()) == len(files) + 2 - 5
    assert world.hashes() == before


def test_a_table_that_cannot_be_compacted_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in range(2):
        world.count(hour, 1, hour)
        world.note()

    def fail(lake: Lake, cursor: Any, statement: str, commit: Commit) -> bool:
        if "'counts'" in statement:
            cursor.execute("SELECT error('a bug')")
        return called(lake, cursor, statement, commit)

    called = compaction._called
    monkeypatch.setattr(compaction, "_called", fail)
    done = world.upkeep()
    (problem,) = done.problems
    assert problem.startswith("uc.counts: ")
    assert "a bug" in problem
    made = {each.before.name: (each.before.files, each.after.files) for each in done.compacted}
    assert made == {"uc.counts": (2, 2), "uc.notes": (2, 1)}


def test_nothing_expires_where_nobody_knows_which_versions_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(settings: Settings) -> None:
        raise RegistryUnavailable("MLflow does not answer")

    monkeypatch.setattr("ml_platform.upkeep.names.trained_snapshots", unavailable)
    world.count(0, 1, 1)
    world.count(0, 1, 2)
    before = snapshots(world.lake)
    done = world.upkeep()
    assert done.expiry is None
    assert done.problems == ("MLflow does not answer",)
    assert before <= snapshots(world.lake)


@pytest.mark.exhaustive
def test_who_reads_while_files_are_merged_never_finds_a_table_empty(world: World) -> None:
    """One of 200 reads did: DuckDB planned and scanned SQLite's tables at different moments."""
    for _ in range(4):
        world.note()
    other, counted = World(Lake(world.lake.settings)), list[int]()

    def read() -> None:
        while len(counted) < 600:
            # A snapshot that has expired, or a catalog that is locked, is no wrong answer.
            with suppress(LakeError), other.lake.cursor() as cursor:
                notes = other.lake.relation(cursor, "uc", "notes", other.lake.snapshot(cursor))
                counted.append(cursor.execute(f"SELECT count(*) FROM {notes}").fetchone()[0])

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        world.note()
        world.note()
        world.count(0, 1, world.written)
        with world.lake.cursor() as cursor:
            newest = world.lake.snapshot(cursor)
            old = list(range(max(newest - 20, 0), max(newest - 8, 1)))
            world.lake.transact(cursor, COMMIT, lambda t, old=old: expire(t, old))
        compaction.compact(world.lake, COMMIT)
    reader.join()
    other.lake.close()
    assert counted == sorted(counted)
    assert counted[0] >= 4


@pytest.mark.slow
def test_a_writer_beside_upkeep_loses_nothing(any_lake: Lake) -> None:
    any_lake.settings = any_lake.settings.model_copy(update={"keep_snapshots": "1d"})
    with any_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.uc CASCADE")
    world, other = World(any_lake), World(Lake(any_lake.settings))
    for people in range(8):
        world.count(people, LONGEST - people, people)
        world.note()
    age_snapshots(any_lake)
    old, failed = snapshots(any_lake), list[BaseException]()

    def write() -> None:
        try:
            for turn in range(12):
                other.count(turn % LONGEST, 1, 100 + turn)
                other.predict(turn % LONGEST, 1)
                other.note()
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while writer.is_alive() or not rounds:
        # By the true time: what the writer does is too young for anything but compaction.
        assert keep_up(any_lake, [], COMMIT, datetime.now(UTC)).problems == ()
        rounds += 1
    writer.join()
    other.lake.close()
    assert failed == []
    with any_lake.cursor() as cursor:
        counted = cursor.execute(
            "SELECT hour(seen_at), count(*), min(people) FROM lake.uc.counts GROUP BY 1"
        ).fetchall()
        notes = cursor.execute("SELECT count(*) FROM lake.uc.notes").fetchone()
    assert snapshots(any_lake).isdisjoint(old - {max(old)})
    last = {turn % LONGEST: 100 + turn for turn in range(12)}
    assert {(hour - 20) % 24: (rows, people) for hour, rows, people in counted} == {
        hour: (3, people) for hour, people in last.items()
    }
    assert notes == (8 + 12,)
    for snapshot in world.named() - old:
        assert world.hashes(snapshot) == other.held[snapshot]


hour_ranges = st.tuples(st.integers(0, LONGEST - 1), st.integers(1, 6))
steps = st.one_of(
    st.tuples(st.just("count"), hour_ranges, st.integers(0, 9), st.sampled_from([0, 1, 3])),
    st.tuples(st.just("predict"), hour_ranges),
    st.tuples(st.just("note")),
    st.tuples(st.just("upkeep")),
)


@pytest.mark.slow
@given(history=st.lists(steps, min_size=3, max_size=10))
@examples(
    max_examples=at_most(12),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_written_and_kept_up_what_is_named_reads_back(any_lake, history):
    with any_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.uc CASCADE")
    world = World(any_lake)
    for what, *step in [*history, ("predict", (0, 1)), ("upkeep",), ("note",), ("upkeep",)]:
        match what:
            case "count":
                (hour, length), people, rows = step
                world.count(hour, length, people, rows)
            case "predict":
                world.predict(*step[0])
            case "note":
                world.note()
            case _:
                now, changes = world.hashes(), world.changes()
                assert world.upkeep().problems == ()
                assert world.hashes() == now
                assert world.changes() == changes
                for snapshot in world.named():
                    assert world.hashes(snapshot) == world.held[snapshot], snapshot
