"""The stores themselves: as-of reads, replacing, and other processes reading and dying."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ml_platform.errors import NotPublished, OnlineStoreError, PlatformError
from ml_platform.features import OnlineStore, open_online_store
from ml_platform.features.online_store import Fresh, Lookup, OnlineRow, ViewContents
from ml_platform.settings import Settings

Rows = list[tuple[str, int, bytes]]
ENTITIES = [f"e{number}" for number in range(300)]


def put(
    store: OnlineStore, view: str, start: int, end: int, rows: Rows, keep_from: int | None = None
) -> None:
    fresh = Fresh(start, [OnlineRow(*row) for row in rows], [start], keep_from)
    store.replace("uc", view, start, end, lambda _: fresh)


def latest(store: OnlineStore, view: str, *lookups: tuple[str, int]) -> list[bytes | None]:
    found = store.read("uc", {view: [Lookup(*lookup) for lookup in lookups]})[view]
    return [None if each is None else each[1] for each in found]


def test_the_latest_row_not_after_the_moment_answers(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 100, [("a", 10, b"1"), ("a", 20, b"2"), ("b", 15, b"3")])
    assert latest(online_store, "v", ("a", 9), ("a", 10), ("a", 19), ("a", 20), ("a", 99)) == [
        None,
        b"1",
        b"1",
        b"2",
        b"2",
    ]
    assert latest(online_store, "v", ("b", 20), ("c", 20)) == [b"3", None]


def test_one_read_answers_for_many_views_with_event_times(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 100, [("a", 10, b"1")])
    put(online_store, "w", 0, 100, [("a", 12, b"2"), ("a\x00:Ä", 13, b"")])
    found = online_store.read(
        "uc", {"v": [Lookup("a", 50)], "w": [Lookup("a\x00:Ä", 50), Lookup("a", 50)]}
    )
    assert {view: [tuple(each) for each in rows if each] for view, rows in found.items()} == {
        "v": [(10, b"1")],
        "w": [(13, b""), (12, b"2")],
    }


def test_times_before_1970_and_rows_of_equal_values_stay_apart(online_store: OnlineStore) -> None:
    put(online_store, "v", -100, 100, [("a", -20, b"x"), ("a", -10, b"x"), ("a", 10, b"x")])
    asked = [Lookup("a", -15), Lookup("a", 0), Lookup("a", 50)]
    found = online_store.read("uc", {"v": asked})["v"]
    assert [each[0] for each in found if each] == [-20, -10, 10]
    assert online_store.count("uc", "v") == 3


def test_replacing_a_range_leaves_the_others(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 100, [("a", 10, b"1"), ("b", 99, b"2")])
    put(online_store, "v", 100, 200, [("a", 100, b"3"), ("c", 150, b"4")])
    put(online_store, "v", 100, 200, [("a", 120, b"5")])
    asked = ("a", 99), ("a", 110), ("a", 130), ("b", 300), ("c", 300)
    assert latest(online_store, "v", *asked) == [b"1", b"1", b"5", b"2", None]
    assert online_store.count("uc", "v") == 3


def test_what_is_too_old_is_dropped(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 100, [("a", 10, b"1"), ("b", 50, b"2")])
    put(online_store, "v", 100, 200, [("a", 150, b"3")], keep_from=50)
    assert latest(online_store, "v", ("a", 100), ("b", 100)) == [None, b"2"]
    assert online_store.count("uc", "v") == 2


def test_entities_are_forgotten_with_all_their_rows(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 100, [("a", 10, b"1"), ("a", 20, b"2"), ("ab", 15, b"3")])
    put(online_store, "w", 0, 100, [("a", 12, b"4")])
    seen: list[str] = []

    def meant(entities: Sequence[str]) -> list[str]:
        seen[:] = sorted(entities)
        return ["a"]

    assert online_store.forget("uc", "v", meant, dry_run=True) == 1
    assert latest(online_store, "v", ("a", 99)) == [b"2"]
    assert online_store.forget("uc", "v", meant) == 1
    assert seen == ["a", "ab"]
    assert latest(online_store, "v", ("a", 99), ("ab", 99)) == [None, b"3"]
    assert latest(online_store, "w", ("a", 99)) == [b"4"]
    assert online_store.count("uc", "v") == 1
    with pytest.raises(NotPublished):
        online_store.forget("uc", "x", meant)


def test_the_writer_learns_what_is_there(online_store: OnlineStore) -> None:
    reported: list[ViewContents] = []

    def replace(start: int, end: int, *times: int, keep_from: int | None = None) -> None:
        def read(stored: ViewContents) -> Fresh:
            reported.append(stored)
            rows = [OnlineRow("a", time, b"") for time in times]
            return Fresh(start, rows, range(start, end, 100), keep_from)

        online_store.replace("uc", "v", start, end, read)

    replace(100, 200, 110, 190)
    replace(100, 200, 150)
    replace(0, 100, 50)
    replace(200, 400, 250, keep_from=100)
    assert online_store.newest("uc", "v") == 250
    replace(200, 300)
    assert [stored.newest for stored in reported] == [None, None, 150, 150, 150]
    assert [sorted(stored.windows) for stored in reported] == [
        [],
        [100],
        [100],
        [0, 100],
        [100, 200, 300],
    ]
    assert online_store.newest("uc", "v") == 150


def test_more_than_was_asked_for_can_be_replaced(online_store: OnlineStore) -> None:
    put(online_store, "v", 0, 300, [("a", 10, b"1"), ("a", 110, b"2"), ("a", 210, b"3")])
    fresh = Fresh(100, [OnlineRow("a", 120, b"4")], [100, 200])
    online_store.replace("uc", "v", 200, 300, lambda _: fresh)
    assert latest(online_store, "v", ("a", 100), ("a", 119), ("a", 999)) == [b"1", b"1", b"4"]
    assert online_store.count("uc", "v") == 2


def test_a_view_of_which_nothing_was_stored_is_an_error_and_no_missing_value(
    online_store: OnlineStore,
) -> None:
    with pytest.raises(NotPublished, match=r"no features of uc.* ml-platform publish uc"):
        latest(online_store, "v", ("a", 1))
    put(online_store, "v", 0, 100, [])
    assert latest(online_store, "v", ("a", 1)) == [None]
    assert online_store.newest("uc", "v") is None
    assert online_store.count("uc", "v") == 0
    with pytest.raises(NotPublished, match="uc/w"):
        online_store.read("uc", {"v": [Lookup("a", 1)], "w": [Lookup("a", 1)]})
    with pytest.raises(NotPublished, match="uc/w"):
        online_store.newest("uc", "w")


def test_of_two_writers_the_one_that_read_later_has_the_last_word(
    online_store: OnlineStore,
) -> None:
    lake = [b"old"]
    others: list[threading.Thread] = []

    def read(_stored: ViewContents) -> Fresh:
        seen = lake[0]
        if not others:
            # What was read is corrected, and that stored, before this writer has stored anything.
            lake[0] = b"new"
            others.append(threading.Thread(target=replace))
            others[0].start()
            others[0].join(timeout=0.5)
        return Fresh(0, [OnlineRow("a", 10, seen)], [0])

    def replace() -> None:
        online_store.replace("uc", "v", 0, 100, read)

    put(online_store, "v", 0, 100, [("a", 10, b"older")])
    replace()
    others[0].join(timeout=30)
    assert latest(online_store, "v", ("a", 10)) == [b"new"]


def generation(number: int) -> Rows:
    return [(entity, number % 50, b"%d" % number) for entity in ENTITIES]


def read_often(settings: Settings, ready: Connection) -> None:
    """Read all entities again and again; sends how many generations each read saw at most."""
    store = open_online_store(settings)
    lookups = [(entity, 100) for entity in ENTITIES]
    seen, most = set(latest(store, "v", *lookups)), 1
    ready.send("reading")
    while not ready.poll():
        found = set(latest(store, "v", *lookups))
        seen |= found
        most = max(most, len(found))
    ready.send((len(seen), most))


def write_for_ever(settings: Settings, out: Connection) -> None:
    store = open_online_store(settings)
    for number in range(1, 1_000_000):
        put(store, "v", 0, 100, generation(number))
        out.send(number)


def settings_of(online_store: OnlineStore, request: pytest.FixtureRequest) -> Settings:
    """What another process opens the same store with."""
    folder = request.getfixturevalue("tmp_path")
    embedded = (Path(folder) / "online").is_dir()
    return Settings(
        data=folder, online_store=None if embedded else request.getfixturevalue("redis_url")
    )


@pytest.mark.slow
def test_readers_in_other_processes_see_whole_ranges(
    online_store: OnlineStore, request: pytest.FixtureRequest
) -> None:
    put(online_store, "v", 0, 100, generation(0))
    settings = settings_of(online_store, request)
    spawn = multiprocessing.get_context("spawn")
    readers = []
    for _ in range(2):
        here, there = spawn.Pipe()
        process = spawn.Process(target=read_often, args=(settings, there))
        process.start()
        readers.append((process, here))
    for _, here in readers:
        assert here.recv() == "reading"
    for number in range(1, 60):
        put(online_store, "v", 0, 100, generation(number))
    for process, here in readers:
        here.send("stop")
        seen, most = here.recv()
        process.join(timeout=30)
        assert seen > 1
        assert most == 1


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_range(
    online_store: OnlineStore, request: pytest.FixtureRequest
) -> None:
    put(online_store, "v", 0, 100, generation(0))
    settings = settings_of(online_store, request)
    spawn = multiprocessing.get_context("spawn")
    lookups = [(entity, 100) for entity in ENTITIES]
    for written in (1, 6):
        here, there = spawn.Pipe()
        process = spawn.Process(target=write_for_ever, args=(settings, there))
        process.start()
        while here.recv() < written:
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(timeout=30)
        found = set(latest(online_store, "v", *lookups))
        assert len(found) == 1
        assert online_store.count("uc", "v") == len(ENTITIES)
        put(online_store, "v", 0, 100, generation(0))


def test_a_server_that_is_unavailable_is_named_without_its_password() -> None:
    store = open_online_store(Settings(online_store="redis://:secret@127.0.0.1:1/0"))
    with pytest.raises(OnlineStoreError, match=r"the online store at 127.0.0.1:1: ") as caught:
        latest(store, "v", ("a", 1))
    assert "secret" not in str(caught.value)


def test_a_setting_that_names_no_store_is_refused() -> None:
    with pytest.raises(PlatformError, match="begins with 'http:'; it should be redis://"):
        open_online_store(Settings(online_store="http://:secret@host"))


def test_a_file_that_is_no_store_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "uc.sqlite").write_bytes(b"no database" * 100)
    store = open_online_store(Settings(data=tmp_path))
    with pytest.raises(OnlineStoreError, match=r"uc.sqlite: file is not a database"):
        latest(store, "v", ("a", 1))
    store.close()
