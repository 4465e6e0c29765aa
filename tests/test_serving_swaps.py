"""Versions are swapped under load: nothing fails, and every answer is its version's own."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.alerts import find_conditions
from ml_platform.errors import LakeError, ModelRefused, NotLoaded, RegistryUnavailable
from ml_platform.registry import ModelVersion, predict, record, serving_events
from ml_platform.registry.promotions import Decision, Promotion
from ml_platform.serving.log import open_log
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.versions.following import Following
from ml_platform.serving.versions.live import RETRY_SECONDS, UNAVAILABLE_SECONDS, LiveVersions
from ml_platform.spec.use_case import UseCase
from ml_platform.training import train
from tests.clock import Clock
from tests.served import ROW, Deployment, deploy
from tests.trips_use_case import COMMIT, at, write_folder

CLIENTS = 8
INVOKE = "/mlflow/trips/invocations"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Versions 1, 2 and 3, of which the first serves."""
    made = deploy(tmp_path_factory.mktemp("swaps"))
    for day in (14, 17, 20):
        train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
    decide(made, 1)
    yield made
    made.lake.close()


def decide(deployment: Deployment, version: int, decision: Decision = "promoted") -> None:
    """Somebody has a version serve from now on."""
    now = pd.Timestamp.now("UTC").to_pydatetime()
    decided = Promotion(version, now, now, "ada", decision, "as the test wants it")
    assert record(deployment.lake, deployment.use_case, decided, COMMIT)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


class Client(threading.Thread):
    """Sends single rows one after the other over one connection, until it is stopped."""

    def __init__(self, address: str, stop: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(address, timeout=60)
        self._seed, self._halt = seed, stop
        self.answers: list[tuple[int, int | None, float]] = []
        """Distance, version, probability; the version is None where there was another status."""

    def run(self) -> None:
        with contextlib.closing(self._connection):
            self._ask_on()

    def _ask_on(self) -> None:
        number = self._seed
        while not self._halt.is_set():
            number = number % 50 + 1
            body = json.dumps({"dataframe_records": [{**ROW, "distance": number}]})
            self._connection.request("POST", INVOKE, body, {"content-type": "application/json"})
            answer = self._connection.getresponse()
            content = json.loads(answer.read())
            if answer.status == 200:
                version = int(answer.headers["x-model-version"])
                self.answers.append((number, version, content["predictions"][0][1]))
            else:
                self.answers.append((number, None, 0.0))


def expected(deployment: Deployment, version: int) -> dict[int, float]:
    """What a version says of a row, by its distance, when it is asked directly."""
    model = deployment.registry.load(deployment.use_case, version)
    rows = pd.DataFrame([{**ROW, "distance": float(n)} for n in range(1, 51)])
    said = predict(deployment.use_case, model, rows.astype({"city": object}))["probability"]
    return dict(zip(range(1, 51), said, strict=True))


@pytest.mark.slow
def test_no_request_fails_or_is_answered_by_a_wrong_version(deployment: Deployment) -> None:
    stop = threading.Event()
    with deployment.served() as served:
        clients = [Client(served.http, stop, seed) for seed in range(CLIENTS)]
        for client in clients:
            client.start()

        def all_saw(version: int) -> Callable[[], bool]:
            return lambda: all(c.answers and c.answers[-1][1] == version for c in clients)

        wait_for(all_saw(1))
        for version, decision in ((2, "promoted"), (3, "promoted"), (1, "rolled back")):
            decide(deployment, version, decision)  # type: ignore[arg-type]
            wait_for(all_saw(version))
        stop.set()
        for client in clients:
            client.join(60)
    by_version = {version: expected(deployment, version) for version in (1, 2, 3)}
    for client in clients:
        assert {version for _, version, _ in client.answers} == {1, 2, 3}
        wrong = [
            (distance, version, said)
            for distance, version, said in client.answers
            if version is None or said != pytest.approx(by_version[version][distance], rel=1e-9)
        ]
        assert wrong == []


@pytest.mark.slow
def test_a_look_that_fails_does_not_end_the_following(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live = LiveVersions(deployment.lake, deployment.registry, [deployment.use_case])
    metrics = Metrics()
    following = Following(live, deployment.lake, deployment.registry, metrics, open_log())
    with monkeypatch.context() as patched:

        def unavailable(*_: object) -> int:
            raise LakeError("the catalog is unavailable")

        patched.setattr(deployment.lake, "snapshot", unavailable)
        following.look()
        following.look()
    assert live.waiting == ("trips",)
    assert b"ml_platform_refresh_failures_total 2.0" in metrics.page()
    assert "the catalog is unavailable" in capsys.readouterr().err
    following.look()
    assert live.model("trips").version == 1
    assert live.waiting == ()


MOODY = """\
import os
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer


def numbers(frame):
    if os.environ.get("MOOD") == "bad":
        raise ValueError("not today")
    shift = 0.5 if os.environ.get("MOOD") == "other" else 0.0
    return frame[["distance"]].fillna(0) + shift


def build():
    return make_pipeline(FunctionTransformer(numbers), LogisticRegression())
"""


@pytest.mark.slow
def test_a_version_that_fails_takes_no_traffic_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deploy(tmp_path, model=MOODY)
    lake, case = made.lake, made.use_case
    for day in (14, 17):
        train(lake, made.registry, case, at(day), COMMIT, tags={})
    decide(made, 1)
    clock = Clock()
    live = LiveVersions(lake, made.registry, [case], clock=clock)
    metrics = Metrics()
    following = Following(live, lake, made.registry, metrics, open_log())
    following.look()

    decide(made, 2)
    monkeypatch.setenv("MOOD", "other")
    following.look()
    assert live.model("trips").version == 1
    (event,) = serving_events(lake, case)
    assert (event.version, event.kind) == (2, "failed")
    assert "get another 'probability' than when it was trained" in event.problem
    assert open_titles(made) == ["Version 2 of trips cannot be served"]
    assert b'ml_platform_version_failed{use_case="trips"} 1.0' in metrics.page()

    # Other problems are news, the same one is not, however often it is met.
    monkeypatch.setenv("MOOD", "bad")
    for _ in range(3):
        clock.now += RETRY_SECONDS
        following.look()
    assert live.model("trips").version == 1
    assert [event.problem[:40] for event in serving_events(lake, case)] == [
        event.problem[:40],
        "trips: predict_proba of 100 rows failed:",
    ]

    monkeypatch.delenv("MOOD")
    clock.now += RETRY_SECONDS
    following.look()
    assert live.model("trips").version == 2
    assert serving_events(lake, case)[-1].kind == "serving"
    assert open_titles(made) == []
    lake.close()


@pytest.mark.slow
def test_a_failure_is_not_tried_again_until_something_is_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = deploy(tmp_path, model=MOODY)
    for day in (14, 17):
        train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
    live = LiveVersions(made.lake, made.registry, [made.use_case])
    monkeypatch.setenv("MOOD", "bad")
    decide(made, 1)
    assert [swap.problem is None for swap in live.refresh()] == [False]
    monkeypatch.delenv("MOOD")
    write_folder(made.root, "binary", MOODY)
    assert live.refresh() == []
    assert live.waiting == ("trips",)
    decide(made, 1, "rolled back")
    assert [(swap.version, swap.problem) for swap in live.refresh()] == [(1, None)]
    made.lake.close()


@pytest.fixture
def moody(tmp_path: Path) -> Iterator[Deployment]:
    """Two versions that cannot be loaded in a bad mood; nothing was decided."""
    made = deploy(tmp_path, model=MOODY)
    for day in (14, 17):
        train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
    yield made
    made.lake.close()


@pytest.mark.slow
def test_a_champion_that_cannot_be_loaded_at_the_start_is_503_with_the_reason(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moody.client() as client:
        answer = client.post(INVOKE, json={"dataframe_records": [ROW]})
        assert answer.status_code == 404
        assert "train one and have it promoted" in answer.json()["detail"]
    decide(moody, 1)
    monkeypatch.setenv("MOOD", "bad")
    with moody.client() as client:
        for answer in (
            client.post(INVOKE, json={"dataframe_records": [ROW]}),
            client.get("/v2/models/trips/ready"),
        ):
            assert answer.status_code == 503
            assert 0 < int(answer.headers["retry-after"]) <= RETRY_SECONDS
            assert "version 1 should serve and cannot be loaded: " in answer.json()["detail"]
            assert "predict_proba of 100 rows failed" in answer.json()["detail"]
        assert client.get("/health/ready").status_code == 503
        assert 'kind="NotLoaded"' in client.get("/metrics").text
    assert open_titles(moody) == ["Version 1 of trips cannot be served"]


@pytest.mark.slow
def test_the_version_before_serves_where_the_champion_cannot_be_loaded_at_the_start(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(moody, 1)
    decide(moody, 2)
    load = moody.registry.load

    def refuse(case: UseCase, version: int) -> ModelVersion:
        if version == 2:
            raise ModelRefused("its file is damaged")
        return load(case, version)

    monkeypatch.setattr(moody.registry, "load", refuse)
    live = LiveVersions(moody.lake, moody.registry, [moody.use_case])
    metrics = Metrics()
    Following(live, moody.lake, moody.registry, metrics, open_log()).look()
    assert live.model("trips").version == 1
    assert open_titles(moody) == ["Version 2 of trips cannot be served"]
    assert b'ml_platform_version_failed{use_case="trips"} 1.0' in metrics.page()

    # One that was rolled back from does not come back by itself.
    decide(moody, 1, "rolled back")
    monkeypatch.setattr(moody.registry, "load", load)
    monkeypatch.setenv("MOOD", "bad")
    live = LiveVersions(moody.lake, moody.registry, [moody.use_case])
    assert [swap.version for swap in live.refresh()] == [1]
    with pytest.raises(NotLoaded, match="version 1 should serve"):
        live.model("trips")


@pytest.mark.slow
def test_a_registry_that_does_not_answer_is_asked_again_soon(
    moody: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(moody, 1)
    clock = Clock()
    live = LiveVersions(moody.lake, moody.registry, [moody.use_case], clock=clock)
    with pytest.raises(NotLoaded, match="has not been read yet"):
        live.model("trips")
    with monkeypatch.context() as patched:

        def unavailable(*_: object) -> ModelVersion:
            raise RegistryUnavailable("connection refused")

        patched.setattr(moody.registry, "load", unavailable)
        live.refresh()
        with pytest.raises(NotLoaded, match="connection refused; it is tried again in 5 s"):
            live.model("trips")
    assert live.refresh() == []
    clock.now += UNAVAILABLE_SECONDS
    assert [swap.problem for swap in live.refresh()] == [None]
    assert live.model("trips").version == 1


def open_titles(made: Deployment) -> list[str]:
    now = pd.Timestamp.now("UTC").to_pydatetime()
    found = find_conditions(made.lake, made.use_case, now).conditions
    return [c.title for c in found if c.kind == "serving"]
