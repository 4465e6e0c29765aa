"""The endpoint changes from one version to the next while it predicts a batch."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pandas as pd
import pytest

from ml_platform.alerts.freshness import read_freshness
from ml_platform.backfill import computing
from ml_platform.backfill.staleness import Standing, judge
from ml_platform.cli.printing import show_scores
from ml_platform.registry import Promotion, record
from ml_platform.registry.promotions import Decision
from ml_platform.scoring import ScoreReport, reproduce, score
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.use_case import UseCase
from ml_platform.training import train
from tests.endpoint_front import Front, Said, front_of
from tests.served import Deployment, deploy, deployed
from tests.trips_use_case import COMMIT, at, days

SCORED = days(25, 27)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, Front]]:
    """Versions 1, 2 and 3, of which the first serves."""
    declared = "serving: {unknown_categories: accept}\n"
    with deployed(tmp_path_factory.mktemp("swaps"), declared=declared) as made:
        for day in (21, 22):
            train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
        with made.served() as served, front_of(served.http) as front:
            yield made, front


def decide(made: Deployment, version: int, day: int, decision: Decision = "promoted") -> None:
    now = pd.Timestamp.now("UTC").to_pydatetime()
    decided = Promotion(version, at(day), now, "ada", decision, "as the test wants it")
    assert record(made.lake, made.use_case, decided, COMMIT)


def wait_until_served(front: Front, version: int) -> None:
    deadline = time.monotonic() + 60
    url = f"http://{front.backend}/v2/models/trips"
    while httpx.get(url, trust_env=False, timeout=60).json()["versions"] != [str(version)]:
        assert time.monotonic() < deadline, f"version {version} does not serve"
        time.sleep(0.02)


def after_requests(count: int, front: Front, do: Callable[[], None]) -> None:
    """Have something done before the request of that number passes, with no other under way."""
    front.asked.clear()

    def rule(number: int, body: bytes) -> Said | None:
        if number == count:
            do()
        return None

    front.rule = rule


def score_by(made: Deployment, front: Front, **declared: object) -> ScoreReport:
    scorer = Scorer.model_validate(
        {"url": f"http://{front.address}", "batch_rows": 10, "concurrency": 1, **declared}
    )
    case = made.use_case.model_copy(update={"scorer": scorer})
    return score(made.lake, made.registry, case, SCORED, COMMIT)


def versions_of(made: Deployment) -> list[int]:
    """The version of each row, in the order of event time."""
    with made.lake.cursor("UTC") as cursor:
        rows = cursor.execute(
            "SELECT model_version FROM lake.trips.predictions ORDER BY event_time, trip"
        ).fetchall()
    return [version for (version,) in rows]


def is_exact(made: Deployment) -> bool:
    return all(
        reproduce(made.lake, made.registry, made.use_case, window).is_exact
        for window in made.use_case.calendar.windows(SCORED)
    )


@pytest.mark.slow
def test_each_row_names_the_version_that_answered_it(world: tuple[Deployment, Front]) -> None:
    made, front = world

    def swap() -> None:
        # From after the windows on, whose champion stays version 1.
        decide(made, 2, 28)
        wait_until_served(front, 2)

    after_requests(6, front, swap)
    report = score_by(made, front, versions="answered", check="all")
    assert versions_of(made) == [1] * 60 + [2] * 60
    assert list(report.versions.values()) == [1, 2, 2]
    assert is_exact(made)
    # Scoring began again, as the promotions had changed, and asked for nothing again.
    assert len(front.asked) == 12


@pytest.mark.slow
def test_a_window_whose_champion_is_not_served_is_predicted_in_process(
    world: tuple[Deployment, Front], capsys: pytest.CaptureFixture[str]
) -> None:
    made, front = world
    wait_until_served(front, 2)
    front.asked.clear()
    report = score_by(made, front)
    assert versions_of(made) == [1] * 120
    assert len(report.in_process) == 3
    show_scores(made.use_case, report)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 partitions (2024-03-25...2024-03-27) in process: the endpoint serves another" in said
    assert len(front.asked) == 1
    assert is_exact(made)


@pytest.mark.slow
def test_where_the_champion_changes_what_the_former_one_answered_is_asked_again(
    world: tuple[Deployment, Front],
) -> None:
    made, front = world
    decide(made, 1, 20, "rolled back")
    wait_until_served(front, 1)

    def swap() -> None:
        decide(made, 3, 22)
        wait_until_served(front, 3)

    after_requests(6, front, swap)
    report = score_by(made, front)
    assert versions_of(made) == [3] * 120
    assert report.in_process == ()
    assert is_exact(made)
    # Six by the former champion, one that showed the change, and all but that one by the next.
    assert len(front.asked) == 6 + 1 + 11


@pytest.mark.slow
def test_without_a_champion_predictions_of_an_endpoint_are_due_and_fresh_like_others(
    tmp_path: Path,
) -> None:
    made = deploy(tmp_path)
    scorer = Scorer(url="http://127.0.0.1:1", versions="answered", check="none")
    foreign = made.use_case.model_copy(update={"scorer": scorer})
    with front_of("127.0.0.1:1") as front:
        answer = {
            "model_version": "7",
            "outputs": [{"name": "p", "shape": [40], "data": [0.25] * 40}],
        }
        front.rule = lambda number, body: Said(200, msgspec.json.encode(answer))
        scored = days(2, 2)

        def standing(case: UseCase) -> Standing:
            (state,) = judge(made.lake, case, scored, ["predictions"])["predictions"].values()
            return state.standing

        assert standing(made.use_case) is Standing.empty
        assert standing(foreign) is Standing.missing
        # What landed just now is late tomorrow.
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        late = {each.table: each for each in read_freshness(made.lake, foreign, tomorrow)}
        assert len(late["predictions"].late) == 30
        here = scorer.model_copy(update={"url": f"http://{front.address}"})
        there = foreign.model_copy(update={"scorer": here})
        with computing(made.lake, there, "predictions", scored, "test") as commit:
            score(made.lake, made.registry, there, scored, commit).raise_if_empty()
        assert standing(foreign) is Standing.fresh
    made.lake.close()
