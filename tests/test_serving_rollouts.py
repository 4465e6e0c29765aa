"""A version tried beside the champion: as a shadow, and as a canary that falls back."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ml_platform.alerts import find_conditions
from ml_platform.cli.app import app
from ml_platform.errors import OnlineStoreUnavailable, Overloaded, PlatformError, RolloutRefused
from ml_platform.registry import Rollout, decide_rollout, rollouts
from ml_platform.registry.rollouts import Mode
from ml_platform.serving.batches import Batches
from ml_platform.serving.versions.canary import takes
from ml_platform.serving.versions.comparison import VersionComparison, comparisons
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.training import train
from tests.served import ROW, Deployment, deploy
from tests.test_serving_swaps import decide
from tests.trips_use_case import COMMIT, at

pytestmark = pytest.mark.slow

INVOKE = "/mlflow/trips/invocations"
MOODY = """\
import os
import time
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


class Numbers:
    def __init__(self, moody):
        self.moody = moody

    def __call__(self, frame):
        if self.moody and len(frame) == 1:
            mood = os.environ.get("MOOD")
            if mood == "bad":
                raise ValueError("not today")
            if mood == "slow":
                time.sleep(0.25)
            while os.environ.get("MOOD") == "stuck":
                time.sleep(0.01)
        return frame[["distance"]].fillna(0)


def build():
    moody = os.environ.get("CHARACTER") == "moody"
    return make_pipeline(FunctionTransformer(Numbers(moody)), LogisticRegression())
"""


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Version 1 serves; version 2 fails and dawdles when the test wants it to."""
    made = deploy(tmp_path, model=MOODY)
    train(made.lake, made.registry, made.use_case, at(14), COMMIT, tags={})
    monkeypatch.setenv("CHARACTER", "moody")
    train(made.lake, made.registry, made.use_case, at(20), COMMIT, tags={})
    decide(made, 1)
    yield made
    made.lake.close()


def try_out(made: Deployment, version: int, mode: Mode, share: float = 0.0) -> None:
    decided = Rollout(version, mode, share, "ada", "to see how it does", datetime.now(UTC))
    decide_rollout(made.lake, made.use_case, decided, COMMIT)


def ask(client: TestClient, distance: float) -> tuple[int, str]:
    answer = client.post(INVOKE, json={"dataframe_records": [{**ROW, "distance": distance}]})
    return answer.status_code, answer.headers.get("x-model-version", "")


def asked_until(client: TestClient, metric: str) -> None:
    deadline = monotonic() + 60
    while metric not in client.get("/metrics").text:
        assert monotonic() < deadline, client.get("/metrics").text
        sleep(0.05)


def seen(made: Deployment) -> VersionComparison:
    (comparison,) = comparisons(made.lake, made.use_case)
    return comparison


def test_the_same_entity_gets_the_same_side_and_a_larger_share_keeps_it() -> None:
    def sides(share: float) -> set[int]:
        rollout = Rollout(2, "canary", share, "ada", "", datetime.now(UTC))
        return {n for n in range(2000) if takes("trips", rollout, str(n).encode())}

    small, same, large = sides(0.1), sides(0.1), sides(0.3)
    assert small == same
    assert small < large
    assert 140 < len(small) < 260
    assert 520 < len(large) < 680


def test_only_one_version_is_tried_at_a_time(moody: Deployment) -> None:
    with pytest.raises(RolloutRefused, match="version 2 is not being tried"):
        try_out(moody, 2, "ended")
    try_out(moody, 2, "shadow")
    with pytest.raises(RolloutRefused, match="version 2 is being tried already"):
        try_out(moody, 3, "canary", 0.5)
    with pytest.raises(RolloutRefused, match="version 1 serves already"):
        try_out(moody, 1, "shadow")
    with pytest.raises(RolloutRefused, match="above 0 and at most 1"):
        try_out(moody, 2, "canary", 1.5)


def test_a_shadow_predicts_the_same_rows_and_answers_nobody(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_out(moody, 2, "shadow")
    with moody.client() as client:
        of = 'ml_platform_tried_requests_total{{mode="shadow",outcome="{}",use_case="trips"}} {}'
        # One by one: where many wait, and the machine is slow, shadows are left out.
        for distance in range(1, 21):
            assert ask(client, distance) == (200, "1")
            asked_until(client, of.format("answered", f"{distance}.0"))
        monkeypatch.setenv("MOOD", "bad")
        assert ask(client, 5) == (200, "1")
        asked_until(client, of.format("failed", "1.0"))
    found = seen(moody)
    assert (found.requests("champion"), found.requests("candidate"), found.errors) == (21, 20, 1)
    assert found.figures["pairs"] == 20
    # Both learnt that longer trips are late, from other days.
    assert found.correlation is not None
    assert found.correlation > 0.99
    assert found.difference is not None
    assert 0 < found.difference < 0.2


@pytest.mark.exhaustive
def test_a_shadow_that_there_is_no_time_for_is_left_out_and_no_failure(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, asked = Batches.submit, []

    async def refuse_the_second(self: Batches[Any, Any], item: Any, rows: int) -> Any:
        asked.append(rows)
        if len(asked) == 2:
            raise Overloaded("8 rows are waiting, which will take 1.0 seconds", 1)
        return await submit(self, item, rows)

    monkeypatch.setattr(Batches, "submit", refuse_the_second)
    try_out(moody, 2, "shadow")
    with moody.client() as client:
        assert ask(client, 5) == (200, "1")
        asked_until(client, 'mode="shadow",outcome="dropped",use_case="trips"} 1.0')
    assert (seen(moody).errors, seen(moody).dropped) == (0, 1)


def test_a_canary_answers_its_share(moody: Deployment) -> None:
    try_out(moody, 2, "canary", 0.5)
    with moody.client() as client:
        first = [ask(client, distance) for distance in range(1, 41)]
        again = [ask(client, distance) for distance in range(1, 41)]
    assert first == again
    assert {status for status, _ in first} == {200}
    assert {version for _, version in first} == {"1", "2"}
    found = seen(moody)
    assert found.requests("champion") + found.requests("candidate") == 80
    assert found.difference is None


def test_a_rollback_ends_a_canary_and_says_so(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, case = moody.lake, moody.use_case
    train(lake, moody.registry, case, at(21), COMMIT, tags={})
    decide(moody, 2)
    try_out(moody, 3, "canary", 1.0)
    live = LiveVersions(lake, moody.registry, [case])
    live.refresh()
    candidate = live.of("trips").candidate
    assert candidate is not None
    assert candidate.version == 3

    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(moody.settings.use_cases))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(moody.settings.data))
    monkeypatch.setenv("USER", "eve")
    command = ["rollback", "trips", "--to", "1", "--reason", "worse at night", "--yes"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "the canary of version 3 ends" in said.output
    live.refresh()
    assert live.model("trips").version == 1
    assert live.of("trips").candidate is None
    tried, ended = rollouts(lake, case)
    assert (tried.mode, ended.mode, ended.version) == ("canary", "ended", 3)
    assert (ended.decided_by, ended.reason) == ("eve", "rolled back to version 1: worse at night")
    # Nothing is left of it, and another one can begin.
    with pytest.raises(RolloutRefused, match="is not being tried"):
        try_out(moody, 3, "ended")
    try_out(moody, 3, "canary", 0.5)
    live.refresh()
    assert live.of("trips").candidate is not None


def test_a_canary_that_fails_is_stood_in_for_and_ended(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_out(moody, 2, "canary", 1.0)
    with moody.client(canary_failures=3) as client:
        assert ask(client, 5) == (200, "2")
        # What the champion refuses as well is the caller's mistake.
        bad = {"dataframe_records": [{**ROW, "distance": "far"}]}
        assert [client.post(INVOKE, json=bad).status_code for _ in range(5)] == [400] * 5
        monkeypatch.setenv("MOOD", "bad")
        assert [ask(client, 5) for _ in range(3)] == [(200, "1")] * 3
        monkeypatch.delenv("MOOD")
        assert ask(client, 5) == (200, "1")
    ended = rollouts(moody.lake, moody.use_case)[-1]
    assert (ended.version, ended.mode, ended.decided_by) == (2, "ended", "ml-platform serve")
    assert ended.reason.startswith("it failed at 3 of its last 4 requests: trips: predict_proba")
    assert seen(moody).errors == 3
    found = find_conditions(moody.lake, moody.use_case, datetime.now(UTC)).conditions
    assert [c.title for c in found if c.kind == "rollout"] == [
        "Version 2 of trips is not tried any more"
    ]


@pytest.mark.exhaustive
@pytest.mark.parametrize("error", [Overloaded("8 rows wait", 1), OnlineStoreUnavailable("gone")])
def test_a_canary_that_there_is_no_time_for_is_left_out_and_no_failure(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch, error: PlatformError
) -> None:
    submit = Batches.submit

    async def refuse_canaries(self: Batches[Any, Any], item: Any, rows: int) -> Any:
        if item.model.version == 2:
            raise error
        return await submit(self, item, rows)

    monkeypatch.setattr(Batches, "submit", refuse_canaries)
    try_out(moody, 2, "canary", 1.0)
    with moody.client(canary_failures=2) as client:
        assert [ask(client, 5) for _ in range(5)] == [(200, "1")] * 5
        asked_until(client, 'mode="canary",outcome="dropped",use_case="trips"} 5.0')
    assert [each.mode for each in rollouts(moody.lake, moody.use_case)] == ["canary"]
    assert (seen(moody).errors, seen(moody).dropped) == (0, 5)


def test_a_load_under_which_the_champion_is_too_slow_is_no_failure_of_the_canary(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Batches.submit

    async def wait_long(self: Batches[Any, Any], item: Any, rows: int) -> Any:
        if item.model.version == 2:
            await asyncio.Event().wait()
        answer = await submit(self, item, rows)
        # As if it had waited for others.
        await asyncio.sleep(0.05)
        return answer

    monkeypatch.setattr(Batches, "submit", wait_long)
    try_out(moody, 2, "canary", 1.0)
    with moody.client(canary_failures=2, canary_seconds=0.02) as client:
        assert [ask(client, 5) for _ in range(4)] == [(200, "1")] * 4
    assert [each.mode for each in rollouts(moody.lake, moody.use_case)] == ["canary"]
    assert (seen(moody).errors, seen(moody).dropped) == (0, 4)


@pytest.mark.exhaustive
def test_a_canary_that_dawdles_is_ended(moody: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    try_out(moody, 2, "canary", 0.5)
    monkeypatch.setenv("MOOD", "slow")
    with moody.client(canary_seconds=30.0, canary_slower=1.5) as client:
        for distance in range(300):
            if ask(client, distance)[1] == "1" and len(rollouts(moody.lake, moody.use_case)) > 1:
                break
    ended = rollouts(moody.lake, moody.use_case)[-1]
    assert ended.mode == "ended"
    assert ended.reason.startswith("it is too slow: p95 of its last")


def test_a_canary_that_takes_too_long_is_not_waited_for(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_out(moody, 2, "canary", 1.0)
    # So long that the champion answers in time, however busy the machine is.
    with moody.client(canary_seconds=2.0, canary_failures=2) as client:
        monkeypatch.setenv("MOOD", "stuck")
        assert [ask(client, 5) for _ in range(2)] == [(200, "1")] * 2
        monkeypatch.delenv("MOOD")
    assert rollouts(moody.lake, moody.use_case)[-1].reason.endswith("no answer in 2 s")


def test_the_command_decides_and_shows(moody: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(moody.settings.data))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(moody.settings.use_cases))
    runner = CliRunner()
    shadowed = runner.invoke(app, ["rollout", "trips", "2", "--shadow", "--reason", "first look"])
    assert re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d E[SD]T  [\w ]+ +first look", shadowed.output)
    with moody.client() as client:
        ask(client, 5)
        asked_until(client, 'mode="shadow",outcome="answered",use_case="trips"} 1.0')
    shown = runner.invoke(app, ["rollout", "trips"]).output
    assert "version 2 as shadow beside version 1" in shown
    assert "mean absolute difference 0." in shown
    assert "ended" in runner.invoke(app, ["rollout", "trips", "2", "--end"]).output
    assert runner.invoke(app, ["rollout", "trips", "2"]).exit_code == 1
