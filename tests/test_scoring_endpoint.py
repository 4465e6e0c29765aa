"""Batches that a running service predicts are those that the process itself predicts."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pandas as pd
import pytest

from ml_platform.errors import EndpointDiffers, EndpointRefused, EndpointUnavailable
from ml_platform.open_inference import inference_pb2 as messages
from ml_platform.scoring import ScoreReport, reproduce, score
from ml_platform.scoring.endpoint import breaker
from ml_platform.scoring.endpoint.grpc import GrpcAsker
from ml_platform.settings import EndpointSettings
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.endpoint_front import Front, Said, front_of
from tests.served import Deployment, deployed
from tests.trips_use_case import COMMIT, days, trips

pytestmark = pytest.mark.slow

SCORED = days(25, 27)
"""Three windows of 40 trips each."""
REQUESTS = 18
"""That they take at 7 rows each."""


@dataclass(frozen=True)
class World:
    """A deployment whose service runs, behind a front."""

    made: Deployment
    front: Front
    grpc: str
    """Address of the service over gRPC, which no front is before."""

    def scorer(self, **declared: object) -> Scorer:
        """An endpoint that is asked for 7 rows at a time, and checked row by row."""
        chosen = {"url": f"http://{self.front.address}", "batch_rows": 7, "check": "all"}
        chosen |= declared
        if chosen.get("protocol") == "mlflow":
            chosen["url"] = f"{chosen['url']}/mlflow/trips"
        return Scorer.model_validate(chosen)

    def score(self, scored: Window = SCORED, **declared: object) -> ScoreReport:
        return self.score_by(self.scorer(**declared), scored)

    def score_by(self, scorer: Scorer | None, scored: Window = SCORED) -> ScoreReport:
        case = self.made.use_case.model_copy(update={"scorer": scorer})
        return score(self.made.lake, self.made.registry, case, scored, COMMIT)

    def stored(self, scored: Window = SCORED) -> pd.DataFrame:
        """The prediction table's rows of a range."""
        with self.made.lake.cursor("UTC") as cursor:
            found: pd.DataFrame = cursor.execute(
                "FROM lake.trips.predictions WHERE event_time >= ? AND event_time < ? "
                "ORDER BY event_time, trip",
                [scored.start, scored.end],
            ).fetch_df()
        return found

    def is_exact(self, scored: Window = SCORED) -> bool:
        """Whether every window comes back to the bit from its versions in process."""
        made = self.made
        return all(
            reproduce(made.lake, made.registry, made.use_case, window).is_exact
            for window in made.use_case.calendar.windows(scored)
        )

    def patient(self, seconds: float, **changes: object) -> "World":
        """The same with other settings."""
        settings = self.made.settings.model_copy(update={"server_wait_seconds": seconds, **changes})
        lake = Lake(settings)
        return World(
            Deployment(self.made.root, settings, lake, self.made.registry, self.made.use_case),
            self.front,
            self.grpc,
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    declared = "serving: {unknown_categories: accept}\n"
    with (
        deployed(tmp_path_factory.mktemp("endpoint"), declared=declared) as made,
        made.served() as served,
        front_of(served.http) as front,
    ):
        yield World(made, front, served.grpc)


@pytest.fixture
def world(root: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nothing is predicted, nothing was asked; who waits, waits shortly."""
    monkeypatch.setattr(breaker, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(breaker, "LONGEST_WAIT_SECONDS", 0.05)
    with root.made.lake.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS lake.trips.predictions")
    for file in (root.made.settings.root / "endpoint_answers").glob("*"):
        file.unlink()
    root.front.asked.clear()
    root.front.passed.clear()
    root.front.headers.clear()
    root.front.came_at.clear()
    root.front.gone_at.clear()
    root.front.most_at_once = 0
    root.front.rule = lambda number, body: None
    return root


@pytest.mark.parametrize("protocol", ["oip", "mlflow"])
def test_an_endpoint_predicts_to_the_bit_what_the_process_does(world: World, protocol: str) -> None:
    report = world.score(protocol=protocol)
    assert len(world.front.passed) == REQUESTS
    assert set(report.versions.values()) == {1}
    there = world.stored()
    assert len(there) == 120
    assert world.is_exact()
    world.score_by(None)
    # What comes out the same is not written again.
    pd.testing.assert_frame_equal(world.stored(), there, check_exact=True)


def test_no_more_requests_wait_than_are_declared(world: World) -> None:
    world.score(concurrency=3)
    assert 1 <= world.front.most_at_once <= 3


def test_what_was_answered_is_not_asked_again_by_the_next_run(world: World) -> None:
    world.front.rule = lambda number, body: Said(400) if number >= 10 else None
    with pytest.raises(EndpointRefused) as refused:
        world.score(concurrency=1)
    assert str(refused.value) == (
        f"trips: http://{world.front.address}/v2/models/trips/infer, asked for rows 28 to 34 of "
        "2024-03-26: HTTP 400: not now"
    )
    answered = list(world.front.passed)
    assert len(answered) == 10
    world.front.rule = lambda number, body: None
    world.front.asked.clear()
    world.score(concurrency=2)
    assert len(world.front.asked) == REQUESTS - 10
    assert not set(world.front.asked) & set(answered)
    assert world.is_exact()
    # Once they are written, another run asks again.
    world.front.asked.clear()
    world.score()
    assert len(world.front.asked) == REQUESTS


def test_what_was_answered_outlives_a_file_that_cannot_be_written(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    file = world.made.settings.root / "endpoint_answers" / "trips.sqlite"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"no database at all" * 100)
    with caplog.at_level(logging.WARNING):
        world.score()
    assert "a run that fails asks again for all of its rows" in caplog.text
    assert world.is_exact()


@pytest.mark.parametrize("status", [429, 503, 0], ids=["429", "503", "broken off"])
def test_what_was_not_answered_is_asked_again(world: World, status: int) -> None:
    world.front.rule = lambda number, body: Said(status) if number % 2 else None
    world.score(days(25, 25))
    assert len(world.front.passed) == 6
    assert len(world.front.asked) > 6
    assert world.is_exact(days(25, 25))


def test_who_does_not_answer_is_named_once_patience_is_used_up(world: World) -> None:
    world.front.rule = lambda number, body: Said(503)
    with pytest.raises(EndpointUnavailable) as refused:
        world.patient(0.3).score()
    assert f"http://{world.front.address}/v2/models/trips/infer, asked for rows" in str(
        refused.value
    )
    assert str(refused.value).endswith("HTTP 503: not now; waited 0.3 s for it")
    assert refused.value.is_final
    assert "\n" not in str(refused.value)


def test_of_several_requests_that_end_the_cause_is_said(world: World) -> None:
    # The first request waits until the third is refused.
    world.front.rule = lambda number, body: (
        Said(503, headers={"retry-after": "20"}) if number == 0 else Said(400, b"{}")
    )
    with pytest.raises(EndpointRefused, match=r"HTTP 400$"):
        world.patient(60).score(concurrency=3)


def test_a_server_that_asks_for_more_time_than_there_is_fails_at_once(world: World) -> None:
    world.front.rule = lambda number, body: Said(429, headers={"retry-after": "3600"})
    with pytest.raises(EndpointUnavailable, match="it asks to wait 3600 s, which is more than 60"):
        world.patient(60).score(concurrency=1)
    assert len(world.front.asked) == 1


def test_no_request_is_sent_before_the_time_that_the_server_asks_for(world: World) -> None:
    said: list[float] = []

    def rule(number: int, body: bytes) -> Said | None:
        if said:
            return None
        said.append(time.monotonic())
        return Said(429, headers={"retry-after": "1"})

    world.front.rule = rule
    world.score(days(25, 25), concurrency=3)
    # At most those come that were under way.
    assert sum(said[0] < at < said[0] + 1 for at in world.front.came_at) <= 2
    assert len(world.front.passed) == 6


def test_headers_of_the_settings_are_sent_and_never_shown(world: World) -> None:
    known = EndpointSettings.model_validate({"headers": {"Authorization": "Bearer hush-hush-123"}})
    there = world.patient(0, endpoints={"trips": known})
    there.score(days(25, 25))
    assert {each["Authorization"] for each in there.front.headers} == {"Bearer hush-hush-123"}
    for status in (401, 503):
        world.front.rule = lambda number, body, status=status: Said(
            status, b'{"detail": "no use of Bearer hush-hush-123"}'
        )
        with pytest.raises((EndpointRefused, EndpointUnavailable)) as refused:
            there.score(days(26, 26))
        assert "no use of" in str(refused.value)
        assert "hush" not in str(refused.value)


def test_a_password_in_the_address_of_the_settings_is_never_shown(world: World) -> None:
    known = EndpointSettings(url=f"http://ada:hush-hush@{world.front.address}")
    there = world.patient(0, endpoints={"trips": known})
    world.front.rule = lambda number, body: Said(401, b'{"detail": "who is ada:hush-hush?"}')
    with pytest.raises(EndpointRefused) as refused:
        there.score(url="http://127.0.0.1:9")
    assert f"http://ada:***@{world.front.address}" in str(refused.value)
    assert "hush" not in str(refused.value)
    assert there.front.headers[0]["Authorization"].startswith("Basic ")


ANSWERS = {
    "no JSON": (b"<html>", "the answer is no JSON object"),
    "no outputs": (b"{}", "the answer has no list `outputs`"),
    "fewer rows": (
        b'{"model_version": "1", "outputs": [{"name": "p", "shape": [1], "data": [0.5]}]}',
        "the answer has shape [1] for 7 rows",
    ),
    "no shape": (
        b'{"model_version": "1", "outputs": [{"name": "p", "shape": [7], "data": [0.5]}]}',
        "1 values do not fit the shape [7]",
    ),
    "text": (
        b'{"model_version": "1", "outputs": [{"name": "p", "shape": [1], "data": ["a"]}]}',
        "output 'probability' holds something else than numbers",
    ),
    "null": (
        msgspec.json.encode(
            {"model_version": "1", "outputs": [{"name": "p", "shape": [7], "data": [None] * 7}]}
        ),
        "the answer holds something that is not a finite number",
    ),
    "no version": (
        msgspec.json.encode({"outputs": [{"name": "p", "shape": [7], "data": [0.5] * 7}]}),
        "the answer names no version by a whole number; declare `scorer.version`",
    ),
    "named version": (
        msgspec.json.encode(
            {"model_version": "blue", "outputs": [{"name": "p", "shape": [7], "data": [0.5] * 7}]}
        ),
        "names no version by a whole number, but 'blue'; declare `scorer.version`",
    ),
    "other outputs": (
        b'{"outputs": [{"name": "a", "data": []}, {"name": "b", "data": []}]}',
        "there is no output 'probability' among 'a', 'b'; declare `scorer.output`",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_no_prediction_is_refused(world: World, name: str) -> None:
    body, said = ANSWERS[name]
    world.front.rule = lambda number, asked: Said(200, body)
    with pytest.raises(EndpointRefused) as refused:
        world.score(days(25, 25), concurrency=1)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"trips: http://{world.front.address}/v2/models/trips")
    assert "\n" not in str(refused.value)


def answering(version: int, probability: float) -> bytes:
    data = [probability] * 40
    outputs = [{"name": "probability", "shape": [40], "data": data}]
    return msgspec.json.encode({"model_version": str(version), "outputs": outputs})


@pytest.mark.parametrize("check", ["sample", "all"])
def test_other_predictions_than_those_of_the_registered_version_are_refused(
    world: World, check: str
) -> None:
    world.front.rule = lambda number, body: Said(200, answering(1, 0.25))
    with pytest.raises(EndpointDiffers, match=r"answers as version 1 and predicts 40 of 40 rows"):
        world.score(days(25, 25), batch_rows=40, check=check)
    with world.made.lake.cursor() as cursor:
        assert "predictions" not in world.made.lake.tables(cursor, "trips")
    # What was refused is asked for again.
    world.front.rule = lambda number, body: None
    world.score(days(25, 25), batch_rows=40)
    assert world.is_exact(days(25, 25))


def test_one_bit_more_is_refused_unless_it_is_allowed(world: World) -> None:
    world.score(days(25, 25), batch_rows=40)
    probabilities = world.stored(days(25, 25))["probability"].tolist()
    moved = [math.nextafter(value, 1) for value in probabilities]
    outputs = [{"name": "probability", "shape": [40], "data": moved}]
    body = msgspec.json.encode({"model_version": "1", "outputs": outputs})
    world.front.rule = lambda number, asked: Said(200, body)
    with pytest.raises(EndpointDiffers, match=r"allow a difference by `scorer.tolerance`"):
        world.score(days(25, 25), batch_rows=40)
    world.score(days(25, 25), batch_rows=40, tolerance=1e-12)
    assert world.stored(days(25, 25))["probability"].tolist() == moved


def test_a_model_that_is_not_registered_is_believed(world: World) -> None:
    world.front.rule = lambda number, body: Said(200, answering(7, 0.25))
    declared = {"batch_rows": 40, "versions": "answered"}
    with pytest.raises(EndpointDiffers, match="trips has no model version 7"):
        world.score(days(2, 2), **declared)
    report = world.score(days(2, 2), **declared, check="none")
    # There was no champion on that day.
    assert list(report.versions.values()) == [7]
    rows = world.stored(days(2, 2))
    assert set(rows["probability"]) == {0.25}
    assert set(rows["model_version"]) == {7}


def test_a_version_that_may_have_seen_the_rows_is_refused(world: World) -> None:
    with pytest.raises(EndpointDiffers, match=r"trained up to 2024-03-20.* score 2024-03-19 in"):
        world.score(days(19, 19), versions="answered")
    # By its champion it is not predicted either: it had none.
    assert not world.score(days(19, 19)).versions


FULL = [
    day
    for day in range(21, 31)
    if trips(1, 30).iloc[40 * (day - 1) : 40 * day]["city"].notna().all()
]
"""Days on which every trip has a city."""


def test_over_grpc_the_same_is_predicted(world: World) -> None:
    for day in FULL:
        report = world.score(days(day, day), url=f"grpc://{world.grpc}")
        assert list(report.versions.values()) == [1]
        assert report.in_process == ()
        assert world.is_exact(days(day, day))
    assert FULL


def test_a_text_that_is_missing_is_not_sent_as_another_one_over_grpc(world: World) -> None:
    with pytest.raises(
        EndpointRefused, match=r"column 'city' has no value in its row .* over http"
    ):
        world.score(days(21, 30), url=f"grpc://{world.grpc}")


def test_who_does_not_answer_over_grpc_is_named(world: World) -> None:
    with pytest.raises(EndpointUnavailable, match=r"grpc://127.0.0.1:1/trips, .*: UNAVAILABLE: "):
        world.patient(0.3).score(days(FULL[0], FULL[0]), url="grpc://127.0.0.1:1")


def test_what_the_server_refuses_over_grpc_is_said(world: World) -> None:
    with pytest.raises(EndpointRefused, match=r"NOT_FOUND: .*tripz"):
        world.score(days(FULL[0], FULL[0]), url=f"grpc://{world.grpc}", model="tripz")


def test_a_share_of_the_time_is_left_to_others(world: World) -> None:
    world.score(days(25, 25), concurrency=1, share=0.25)
    came, gone = world.front.came_at, world.front.gone_at
    assert len(came) == 6
    for end, begun, following in zip(gone, came, came[1:], strict=False):
        # Three times as long as the request had been under way, as the caller saw it.
        assert following - end >= 3 * (end - begun)
    assert world.is_exact(days(25, 25))


def test_over_grpc_texts_are_distinguished_from_bytes() -> None:
    asker = GrpcAsker("grpc://127.0.0.1:9", "trips", "p", {}, 1.0, (None, None, None))
    packed = asker.pack(pd.DataFrame({"city": ["Boston"], "distance": [21.5]}))
    asker.close()
    tensors = messages.ModelInferRequest.FromString(packed).inputs
    reported = {each.name: dict(each.parameters) for each in tensors}
    assert reported["city"]["content_type"].string_param == "str"
    assert reported["distance"] == {}
