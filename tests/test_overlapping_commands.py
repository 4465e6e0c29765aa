"""Any two commands that overlap leave what one after the other would have left."""

import threading
from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import pytest

from ml_platform.storage import lake as lakes
from tests.overlapping import (
    COMMANDS,
    Origin,
    Outcome,
    Pause,
    attempt,
    build_world,
    outcome,
    pausing,
)

MOST_POINTS = 12


@pytest.fixture(scope="module")
def origin(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Origin]:
    root = tmp_path_factory.mktemp("overlapping")
    if request.param == "sqlite":
        yield Origin(build_world(root))
        return
    server = request.getfixturevalue("postgres")
    # pytest makes the fixture again where tests of the other catalog come in between.
    for name in ("overlapping", "overlapping_kept"):
        server.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);")
    server.psql("CREATE DATABASE overlapping;")
    world = build_world(root, f"postgres:{server.get_uri('overlapping')}")
    server.psql("CREATE DATABASE overlapping_kept TEMPLATE overlapping;")

    def forget() -> None:
        server.psql("DROP DATABASE overlapping WITH (FORCE);")
        server.psql("CREATE DATABASE overlapping TEMPLATE overlapping_kept;")

    yield Origin(world, forget)
    world.close()


@pytest.fixture(scope="module")
def serial(origin: Origin) -> dict[tuple[str, str], Outcome]:
    """What two commands leave, one after the other; filled as it is asked for."""
    return {}


def one_after_the_other(
    origin: Origin, known: dict[tuple[str, str], Outcome], first: str, second: str
) -> Outcome:
    if (first, second) not in known:
        world = origin.again()
        said = {name: attempt(COMMANDS[name], world, world.lake()) for name in (first, second)}
        known[first, second] = {**outcome(world), "said": said}
    return known[first, second]


def refused(origin: Origin, command: str, other: str, error: str) -> Outcome:
    """What a command leaves alone, where the other one ends with an error and leaves nothing."""
    world = origin.again()
    said = {command: attempt(COMMANDS[command], world, world.lake()), other: error}
    return {**outcome(world), "said": said}


def overlapped(
    origin: Origin, patch: pytest.MonkeyPatch, paused: str, other: str, point: str
) -> Outcome | None:
    """Run `other` while `paused` is held at a point; None where it never comes there."""
    world = origin.again()
    lake, pause, said = world.lake(), Pause(point), {}
    with pausing(patch, lake, pause):
        thread = threading.Thread(
            target=lambda: said.update({paused: attempt(COMMANDS[paused], world, lake, pause)})
        )
        thread.start()
        while thread.is_alive() and not pause.reached.wait(0.01):
            pass
        if not pause.reached.is_set():
            return None
        try:
            said[other] = attempt(COMMANDS[other], world, world.lake())
        finally:
            pause.proceed.set()
            thread.join()
    return {**outcome(world), "said": said}


AT_STAKE = [
    ("ingest", "ingest late file"),
    ("ingest late row", "ingest table"),
    ("labels", "ingest late feedback"),
    ("features", "ingest"),
    ("score", "roll back"),
    ("approve", "score"),
    ("promote", "approve"),
]
"""Pairs of which one reads what the other one writes, one of each kind: what CI runs."""
ON_BOTH_CATALOGS = [("ingest", "ingest late file"), ("approve", "score")]
"""Those that CI runs on PostgreSQL too: rows and a decision."""
OFTEN = [("approve", "score")]
"""What `make test` runs."""


DECISIONS = ("approve", "promote")


def pairs() -> list[Any]:
    """Every two commands, each of them paused in its turn; most take too long for every day."""
    found = []
    for catalog, pair in product(("sqlite", "postgres"), permutations(COMMANDS, 2)):
        in_ci = pair in (AT_STAKE if catalog == "sqlite" else ON_BOTH_CATALOGS)
        marks = [pytest.mark.slow if in_ci else pytest.mark.exhaustive]
        if catalog == "sqlite" and pair in OFTEN:
            marks = []
        found.append(pytest.param(catalog, *pair, marks=marks))
    return found


def points() -> Iterator[str]:
    yield "read"
    for number in range(1, MOST_POINTS):
        yield f"compute {number}"
        yield f"commit {number}"


@pytest.mark.parametrize(
    ("origin", "paused", "other"), pairs(), indirect=["origin"], scope="module"
)
def test_two_commands_that_overlap_leave_what_one_after_the_other_leaves(
    origin: Origin, serial: Any, monkeypatch: pytest.MonkeyPatch, paused: str, other: str
) -> None:
    # Whoever comes second need not wait: an embedded catalog is whole without turns too.
    monkeypatch.setattr(lakes, "turns_file", lambda settings: None)
    allowed = [
        one_after_the_other(origin, serial, *order) for order in ((paused, other), (other, paused))
    ]
    if paused == "roll back" and other in DECISIONS:
        # What a person has agreed to holds no more: refused, so that the person looks again.
        allowed.append(refused(origin, other, paused, "RollbackRefused"))
    for point in points():
        found = overlapped(origin, monkeypatch, paused, other, point)
        if found is None:
            if point.startswith("compute"):
                break
            continue
        is_allowed = found in allowed
        assert is_allowed, f"{paused}, held at {point}: {differences(found, allowed)}"


def differences(found: Outcome, allowed: list[Outcome]) -> list[Any]:
    """Names and values in which an outcome is neither of those that are allowed, in part."""
    return [
        {name: _apart(found[name], each[name]) for name in found if found[name] != each[name]}
        for each in allowed
    ]


def _apart(found: Any, allowed: Any) -> Any:
    if not isinstance(found, list) or not isinstance(allowed, list):
        return found, allowed
    return [row for row in found if row not in allowed][:2], [
        row for row in allowed if row not in found
    ][:2]
