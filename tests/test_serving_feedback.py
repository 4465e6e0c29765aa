"""Labels that come back: which one holds, and that reports and training sets use it."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pandas as pd
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ml_platform.access import Action, Audit
from ml_platform.cli.app import app
from ml_platform.features import compute_labels, count_feedback
from ml_platform.monitoring import Skew, compare_online, report_drift, report_performance
from ml_platform.monitoring.live import labelled_requests
from ml_platform.scoring import score
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.feedback import digest_of
from ml_platform.sources import arrivals, ingest
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.training.training_set import labelled
from tests.served import LOGGED, Deployment, declare, deploy, published, rows_of
from tests.trips_use_case import COMMIT, at, days, land, trips

pytestmark = pytest.mark.slow

DAY = days(29, 29)
NOW = datetime(2024, 4, 20, tzinfo=UTC)


@pytest.fixture
def deployment(trained: Deployment) -> Iterator[Deployment]:
    """The deployment without what an earlier test made known."""
    yield trained
    folder = Path(trained.settings.landing_uri) / "trips"
    for file in folder.rglob("*.jsonl"):
        file.unlink()
    with trained.lake.cursor() as cursor:
        for table in ("feedback", "requests", "landings", "quarantine"):
            cursor.execute(f"DROP TABLE IF EXISTS lake.trips.{table}")
    compute_labels(trained.lake, trained.use_case, DAY, COMMIT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = declare(deploy(tmp_path_factory.mktemp("feedback")), LOGGED)
    made.promote(20)
    published(made)
    yield made
    made.lake.close()


def give(client: TestClient, *items: dict[str, Any]) -> Any:
    return client.post("/feedback/trips", json={"items": list(items)})


def of(trip: int, label: bool, known_at: str | None = None, **more: Any) -> dict[str, Any]:
    row = next(row for row in rows_of(29) if row["trip"] == trip)
    known = {} if known_at is None else {"known_at": known_at}
    return {"trip": trip, "event_time": row["started_at"], "label": label, **known, **more}


def labels(made: Deployment) -> dict[int, bool]:
    """What is known of each trip, once everything that landed has been ingested."""
    case = made.use_case
    for source in ("requests", "feedback"):
        if any((Path(made.settings.landing_uri) / "trips" / source).glob("*.jsonl")):
            ingest(made.lake, case, source, DAY, COMMIT)
    compute_labels(made.lake, case, DAY, COMMIT)
    return labels_of(made.lake)


def labels_of(lake: Lake) -> dict[int, bool]:
    with lake.cursor() as cursor:
        rows = cursor.execute(
            "SELECT trip, label FROM lake.trips.labels WHERE window_start = "
            "TIMESTAMP '2024-03-29 04:00:00'"
        ).fetchall()
    assert len(rows) == len(dict(rows)), "one label an example"
    return dict(rows)


def late(trip: int) -> bool:
    """What the source says of a trip."""
    known = trips(1, 30).set_index("trip")
    return bool(known.loc[trip, "delay"] > 15)


@pytest.mark.exhaustive
def test_what_is_given_later_holds(deployment: Deployment) -> None:
    trip, other = rows_of(29)[0]["trip"], rows_of(29)[1]["trip"]
    with deployment.client() as client:
        answer = give(
            client,
            of(trip, not late(trip)),
            # The source knew it six hours after the start, that is after this.
            of(other, not late(other), rows_of(29)[1]["started_at"]),
        )
        assert answer.status_code == 202, answer.json()
        assert answer.json()["taken"] == 2
    found = labels(deployment)
    assert found[trip] is not late(trip)
    assert found[other] is late(other)
    assert len(found) == 40


def test_times_without_a_zone_are_those_of_the_use_case_and_answered_as_such(
    deployment: Deployment,
) -> None:
    row = rows_of(29)[0]
    zone = ZoneInfo(deployment.use_case.timezone)
    local = datetime.fromisoformat(row["started_at"]).astimezone(zone)
    with deployment.client() as client:
        zoned = give(client, of(row["trip"], True))
        answer = give(
            client,
            of(row["trip"], True),
            # Of an hour that comes twice, the second, as rows to predict are read.
            {**of(row["trip"], not late(row["trip"])), "event_time": f"{local:%F %T.%f}",
             "known_at": "2024-11-03T01:30"},
        )  # fmt: skip
    assert "times_read" not in zoned.json()
    assert answer.json()["times_read"] == {
        "zone": "America/New_York",
        "read_as": [
            {"item": 1, "column": "event_time", "time": local.isoformat()},
            {"item": 1, "column": "known_at", "time": "2024-11-03T01:30:00-05:00"},
        ],
    }
    assert labels(deployment)[row["trip"]] is not late(row["trip"])


def test_of_several_the_one_known_last_holds_and_repeating_changes_nothing(
    deployment: Deployment,
) -> None:
    trip = rows_of(29)[2]["trip"]
    with deployment.client() as client:
        give(client, of(trip, True, "2024-04-02T00:00:00Z", kind="correction"))
        give(client, of(trip, False, "2024-04-01T00:00:00Z"))
        give(client, *[of(trip, True, "2024-04-02T00:00:00Z", kind="correction")] * 3)
    assert labels(deployment)[trip] is True
    counts = count_feedback(deployment.lake, deployment.use_case, DAY)
    assert (counts.given, counts.conflicts, counts.unmatched) == (2, 0, 0)


def test_two_that_contradict_each_other_are_reported(deployment: Deployment) -> None:
    trip = rows_of(29)[3]["trip"]
    with deployment.client() as client:
        give(client, of(trip, True, "2024-04-02T00:00:00Z"))
        give(client, of(trip, False, "2024-04-02T00:00:00Z"))
    assert labels(deployment)[trip] is False
    assert count_feedback(deployment.lake, deployment.use_case, DAY).conflicts == 1


def test_a_prediction_is_named_by_its_id(deployment: Deployment) -> None:
    row = rows_of(29)[4]
    with deployment.client() as client:
        (said,) = client.post("/predict/trips", json={"rows": [row]}).json()["predictions"]
        unknown = said["id"].replace(said["id"][15:25], "0123456789")
        give(client, {"prediction_id": said["id"], "label": not late(row["trip"])})
        give(client, {"prediction_id": unknown, "label": True})
    assert labels(deployment)[row["trip"]] is not late(row["trip"])
    assert count_feedback(deployment.lake, deployment.use_case, DAY).unmatched == 1


@pytest.mark.exhaustive
def test_what_is_said_of_an_example_waits_for_it_and_is_counted_meanwhile(
    deployment: Deployment,
) -> None:
    case, lake = deployment.use_case, deployment.lake
    landed, today = trips(1, 30), Window(at(28), at(30))
    here = landed[landed["started_at"].dt.day.isin([28, 29])]
    new, started = here.iloc[-1].copy(), here["started_at"].iloc[-1] + timedelta(minutes=1)
    new["trip"], new["started_at"] = 7, started
    with deployment.client() as client:
        item = {"trip": 7, "event_time": started.isoformat(), "label": True}
        give(client, item, item, of(rows_of(29)[0]["trip"], True))
        give(client, {**item, "label": False})
    assert labels(deployment).keys() == {row["trip"] for row in rows_of(29)}
    assert count_feedback(lake, case, DAY).unmatched == 1
    assert count_feedback(lake, case, DAY).given == 3
    land(lake, case, pd.concat([here, new.to_frame().T.astype(here.dtypes)]), today)
    in_one = labels_of(lake)
    assert in_one[7] is False
    assert count_feedback(lake, case, DAY).unmatched == 0
    for day in (29, 28):
        compute_labels(lake, case, days(day, day), COMMIT)
    assert labels_of(lake) == in_one
    land(lake, case, here, today)
    assert 7 not in labels_of(lake)


def test_reports_and_training_sets_use_what_was_given(deployment: Deployment) -> None:
    case, lake = deployment.use_case, deployment.lake
    score(lake, deployment.registry, case, DAY, COMMIT)
    before = report_performance(lake, case, DAY, COMMIT, now=datetime.now(UTC)).windows
    with deployment.client() as client:
        known = "2024-03-30T12:00:00Z"
        items = [
            of(row["trip"], not late(row["trip"]), known, kind="correction") for row in rows_of(29)
        ]
        assert give(client, *items).status_code == 202
    given = labels(deployment)
    after = report_performance(lake, case, DAY, COMMIT, now=datetime.now(UTC)).windows
    (was,), (now,) = before.values(), after.values()
    assert now.metrics["roc_auc"] == pytest.approx(1 - was.metrics["roc_auc"])

    def known_by(moment: datetime) -> dict[int, bool]:
        with lake.cursor(case.timezone) as cursor:
            rows = labelled(cursor, lake, case, DAY, moment, lake.snapshot(cursor))
        return dict(zip(rows["trip"], rows["label"], strict=True))

    # What corrects the source counts once it has come, whatever it says of itself.
    assert known_by(at(31)) == {trip: late(trip) for trip in given}
    assert known_by(datetime.now(UTC)) == given


def test_live_traffic_has_reports_of_its_own(deployment: Deployment) -> None:
    case, lake = deployment.use_case, deployment.lake
    with deployment.client() as client:
        answered = client.post("/predict/trips", json={"rows": rows_of(29)}).json()["predictions"]
        # A row without a key is labelled by the id of its prediction.
        row = {"city": "Boston", "distance": 21.5, "pace__pace": 0.36}
        alone = client.post("/invocations", json={"dataframe_records": [row]})
        give(client, {"prediction_id": alone.headers["x-prediction-id"], "label": True})
    labels(deployment)
    score(lake, deployment.registry, case, DAY, COMMIT)
    batch = report_performance(lake, case, DAY, COMMIT, now=NOW).windows
    live = report_performance(lake, case, DAY, COMMIT, now=NOW, live=True).windows
    (of_batch,), (of_live,) = batch.values(), live.values()
    assert of_live.rows == len(answered) == 40
    assert of_live.metrics == of_batch.metrics
    today = case.calendar.window_at(datetime.now(UTC))
    for source in ("requests", "feedback"):
        ingest(lake, case, source, today, COMMIT)
    now = datetime.now(UTC)
    (of_today,) = report_performance(lake, case, today, COMMIT, now=now, live=True).windows.values()
    assert (of_today.rows, of_today.labelled) == (1, 1)
    # A correction counts from when it came: until then the label was what had been said first.
    with deployment.client() as client:
        prediction = alone.headers["x-prediction-id"]
        give(client, {"prediction_id": prediction, "label": False, "kind": "correction"})
    ingest(lake, case, "feedback", today, COMMIT)
    with lake.cursor(case.timezone) as cursor:
        reported = [
            labelled_requests(cursor, lake, case, today, lake.snapshot(cursor), by)[
                "label"
            ].tolist()
            for by in (now, datetime.now(UTC))
        ]
    assert reported == [[True], [False]]
    (drift,) = report_drift(
        lake, deployment.registry, case, DAY, COMMIT, live=True
    ).windows.values()
    rows = {column.column: column.current_rows for column in drift.columns}
    assert rows["probability"] == rows["pace__pace"] == rows["city"] == 40


def test_features_looked_up_online_are_compared_with_the_join(deployment: Deployment) -> None:
    case, lake = deployment.use_case, deployment.lake
    with deployment.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(29)})
    labels(deployment)
    assert compare_online(lake, case, DAY) == Skew(40, {})
    with lake.cursor() as cursor:
        cursor.execute(
            "UPDATE lake.trips.requests SET pace__pace = pace__pace * (1 + 1e-15) "
            f"WHERE trip = {rows_of(29)[0]['trip']}"
        )
    assert compare_online(lake, case, DAY) == Skew(40, {"pace__pace": 1})


def test_uncertain_predictions_wait_until_somebody_answers_or_skips(
    deployment: Deployment,
) -> None:
    with deployment.client() as client:
        answered = client.post("/predict/trips", json={"rows": rows_of(29)}).json()["predictions"]
    labels(deployment)
    uncertain = {p["id"] for p in answered if 0.2 <= p["probability"] <= 0.8}
    assert len(uncertain) > 2
    trip = {p["id"]: row["trip"] for p, row in zip(answered, rows_of(29), strict=True)}
    with deployment.client() as client:
        waiting = client.get("/review/trips").json()["waiting"]
        assert {each["prediction_id"] for each in waiting} == uncertain
        first, second, *others = sorted(uncertain)
        said = {"label": not late(trip[first]), "by": "ada"}
        assert client.post(f"/review/trips/{first}", json=said).status_code == 202
        assert client.post(f"/review/trips/{second}", json={"skip": True}).status_code == 202
        # At once, though nothing has been ingested yet.
        left = client.get("/review/trips").json()["waiting"]
        assert {each["prediction_id"] for each in left} == set(others)
        # A person's answer holds against what a feed says later.
        give(client, of(trip[first], late(trip[first]), kind="correction"))
    found = labels(deployment)
    assert found[trip[first]] is not late(trip[first])
    assert found[trip[second]] is late(trip[second])
    with deployment.client() as client:
        left = client.get("/review/trips").json()["waiting"]
        assert {each["prediction_id"] for each in left} == set(others)


@pytest.mark.exhaustive
def test_nobody_is_asked_again_between_a_look_at_landing_and_the_run_that_ingests(
    deployment: Deployment,
) -> None:
    with deployment.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(29)})
    labels(deployment)
    with deployment.client() as client:
        first, *others = waiting(client)
        client.post(f"/review/trips/{first}", json={"skip": True})
    later = datetime.now(UTC) + timedelta(hours=1)
    found = arrivals(deployment.lake, deployment.use_case, "feedback", COMMIT, later)
    assert list(found.windows) == [DAY]
    with deployment.client() as client:
        assert waiting(client) == others


def test_what_was_answered_weeks_ago_waits_no_longer_and_what_came_later_does(
    deployment: Deployment,
) -> None:
    case, lake = deployment.use_case, deployment.lake
    with deployment.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(28)})
    landing = Path(deployment.settings.landing_uri) / "trips" / "requests"
    old = datetime.now(UTC) - timedelta(days=29)
    for file in landing.glob("*.jsonl"):
        records = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
        aged = [{**record, "answered_at": old} for record in records]
        file.write_bytes(msgspec.json.Encoder().encode_lines(aged))
    ingest(lake, case, "requests", days(28, 28), COMMIT)
    with lake.cursor() as cursor:
        ((oldest,),) = cursor.execute(
            "SELECT min(prediction_id) FROM lake.trips.requests "
            "WHERE probability BETWEEN 0.2 AND 0.8"
        ).fetchall()
    with deployment.client() as client:
        assert waiting(client) == []
        answer = client.post(f"/review/trips/{oldest}", json={"label": True})
        assert answer.status_code == 409
        assert "longer ago than 28d; say its label as feedback" in answer.json()["detail"]
        client.post("/predict/trips", json={"rows": rows_of(29)})
    labels(deployment)
    with deployment.client() as client:
        assert len(found := waiting(client)) > 2
        assert oldest not in found


def waiting(client: TestClient) -> list[str]:
    """Predictions that wait, those that were made last first."""
    found = client.get("/review/trips")
    assert found.status_code == 200, found.text
    return [each["prediction_id"] for each in found.json()["waiting"]]


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        ({"label": True}, "name the prediction by prediction_id, or by trip and event_time"),
        ({"prediction_id": "x", "label": True}, "'x' is not what predictions are called here"),
        ({"trip": 1, "event_time": "2024-03-29", "label": "yes"}, "should be true or false"),
        ({"trip": "a", "event_time": "2024-03-29", "label": True}, "'a' is not BIGINT"),
        ({"labl": True}, "no such key. Did you mean 'label'?"),
        ({"flight": 1}, "no such key. There are: trip, prediction_id, event_time, label, kind,"),
    ],
)
def test_feedback_that_cannot_be_used_is_refused(
    deployment: Deployment, item: dict[str, Any], detail: str
) -> None:
    with deployment.client() as client:
        answer = give(client, item)
    assert answer.status_code == 400
    assert detail in answer.json()["detail"]
    assert answer.json()["detail"].startswith("item 0")
    assert not list((Path(deployment.settings.landing_uri) / "trips").rglob("*.jsonl"))


NEXT_YEAR = datetime.now(UTC) + timedelta(days=365)


@pytest.mark.parametrize(
    ("times", "field", "detail"),
    [
        (("2024-03-29T12:00:00Z", "2024-03-29T11:59:29Z"), "known_at", "is before the event time"),
        (("2024-03-29T12:00:00Z", NEXT_YEAR.isoformat()), "known_at", "is in the future"),
        ((NEXT_YEAR.isoformat(), None), "event_time", "is in the future"),
        (("2024-02-29T12:00:00Z", None), "event_time", "outside of the history, which is from 20"),
        (("0001-01-01T00:00:00Z", None), "event_time", "outside of the history"),
    ],
)
def test_a_time_that_cannot_be_is_refused_by_name(
    deployment: Deployment, times: tuple[str, str | None], field: str, detail: str
) -> None:
    event_time, known_at = times
    known = {} if known_at is None else {"known_at": known_at}
    moment = datetime.fromisoformat(event_time) - datetime(1970, 1, 1, tzinfo=UTC)
    by_id = f"000601fcbba0d8-0123456789-{moment // timedelta(microseconds=1) % 2**64:016x}-0"
    with deployment.client() as client:
        good = of(rows_of(29)[0]["trip"], True)
        by_key = give(client, good, {"trip": 1, "event_time": event_time, "label": True, **known})
        named = give(client, {"prediction_id": by_id, "label": True, **known})
    for answer in (by_key, named):
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert detail in answer.json()["detail"]
    assert by_key.json()["detail"].startswith("item 1: ")
    assert by_key.json()["field"] == field
    assert named.json()["field"] == field.replace("event_time", "prediction_id")
    assert not list((Path(deployment.settings.landing_uri) / "trips").rglob("*.jsonl"))


def test_clocks_may_differ_by_little_and_what_lands_otherwise_is_quarantined(
    deployment: Deployment,
) -> None:
    row = rows_of(29)[0]
    started = datetime.fromisoformat(row["started_at"])
    with deployment.client() as client:
        early = of(row["trip"], True, (started - timedelta(seconds=20)).isoformat())
        assert give(client, early).status_code == 202
    (file,) = (Path(deployment.settings.landing_uri) / "trips" / "feedback").glob("*.jsonl")
    record = msgspec.json.decode(file.read_bytes())
    assert datetime.fromisoformat(record["known_at"]) == started
    known_before = {**record, "feedback_id": "by hand", "known_at": "2024-03-01T00:00:00Z"}
    file.with_name("by_hand.jsonl").write_bytes(msgspec.json.encode(known_before) + b"\n")
    report = ingest(deployment.lake, deployment.use_case, "feedback", DAY, COMMIT)
    (counts,) = report.windows.values()
    assert (counts.landed, counts.quarantined) == (2, 1)


def test_an_answer_is_taken_once_and_of_what_waits_alone(deployment: Deployment) -> None:
    with deployment.client() as client:
        answered = client.post("/predict/trips", json={"rows": rows_of(29)}).json()["predictions"]
        early = client.post(f"/review/trips/{answered[0]['id']}", json={"label": True})
        assert early.status_code == 404
        assert "has not been ingested yet" in early.json()["detail"]
    labels(deployment)
    sure = next(p["id"] for p in answered if not 0.2 <= p["probability"] <= 0.8)
    with deployment.client() as client:
        first, second, third, *_ = waiting(client)

    def say(prediction: str, by: str, **what: Any) -> tuple[int, str]:
        answer = client.post(f"/review/trips/{prediction}", json={**what, "by": by})
        found = answer.json()
        return answer.status_code, found.get("detail", str(found.get("taken")))

    def check_that_none_waits_any_more() -> None:
        assert say(first, "ada", label=True) == (200, "0")
        assert say(second, "ada", skip=True) == (200, "0")
        for by, label in (("bob", True), ("ada", False)):
            status, detail = say(first, by, label=label)
            assert status == 409
            assert f"'{first}' waits no more: ada answered 'true' at 20" in detail
            assert detail.endswith("to change that, send a correction")
        status, detail = say(second, "bob", skip=True)
        assert (status, "waits no more: ada skipped it at 20" in detail) == (409, True)
        status, detail = say(third, "ada", label=True)
        assert status == 409
        assert "waits no more: anonymous@testclient said 'false' as feedback at 20" in detail

    with deployment.client() as client:
        assert say(first, "ada", label=True) == (202, "1")
        assert say(second, "ada", skip=True) == (202, "1")
        give(client, {"prediction_id": third, "label": False})
        check_that_none_waits_any_more()
        unknown = first.replace(first[15:25], "0123456789")
        assert say(unknown, "ada", label=True)[0] == 404
        status, detail = say(sure, "ada", skip=True)
        assert (status, "never waited for a person" in detail) == (404, True)
        assert say("x", "ada", label=True)[0] == 400
    labels(deployment)
    with deployment.client() as client:
        check_that_none_waits_any_more()
        assert say(second, "ada", label=True, kind="correction") == (202, "1")
        assert say(first, "bob", label=False, kind="correction") == (202, "1")
        assert say(first, "bob", label=False, kind="correction") == (200, "0")
    labels(deployment)
    with deployment.lake.cursor() as cursor:
        kept = cursor.execute(
            "SELECT prediction_id, kind, given_by, label FROM lake.trips.feedback "
            "ORDER BY received_at"
        ).fetchall()
    assert kept == [
        (first, "label", "ada", True),
        (second, "skip", "ada", None),
        (third, "label", "anonymous@testclient", False),
        (second, "correction", "ada", True),
        (first, "correction", "bob", False),
    ]


def test_what_has_not_happened_has_no_label_but_may_be_skipped(deployment: Deployment) -> None:
    case, lake = deployment.use_case, deployment.lake
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    row = {**rows_of(29)[0], "started_at": tomorrow.isoformat()}
    with deployment.client() as client:
        client.post("/predict/trips", json={"rows": [row]})
    ingest(lake, case, "requests", case.calendar.window_at(tomorrow), COMMIT)
    with lake.cursor() as cursor:
        cursor.execute("UPDATE lake.trips.requests SET probability = 0.5")
    with deployment.client() as client:
        (only,) = waiting(client)
        answer = client.post(f"/review/trips/{only}", json={"label": True})
        assert (answer.status_code, answer.json()["field"]) == (422, "prediction_id")
        assert client.post(f"/review/trips/{only}", json={"skip": True}).status_code == 202


def test_the_queue_is_worked_off_on_the_command_line(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(deployment.settings.data))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(deployment.settings.use_cases))
    with deployment.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(29)})
    labels(deployment)

    def listed(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, ["review", "trips", *arguments])
        assert result.exit_code == 0, result.output
        return [line.split()[0] for line in result.output.splitlines()]

    first, second, *others = listed("--limit", "100")
    shown = CliRunner().invoke(app, ["review", "trips"]).output
    assert "city=" in shown
    assert "pace__pace=" not in shown
    assert listed("--answer", first, "true") == [first]
    again = CliRunner().invoke(app, ["review", "trips", "--answer", first, "true"])
    assert (again.exit_code, again.output) == (0, f"{first} is true, as you said before\n")
    other = CliRunner().invoke(app, ["review", "trips", "--answer", first, "false"])
    assert (other.exit_code, "waits no more" in str(other.exception)) == (1, True)
    assert listed("--answer", first, "false", "--correct") == [first]
    assert listed("--skip", second) == [second]
    assert listed("--limit", "100") == others
    labels(deployment)
    with deployment.lake.cursor() as cursor:
        kinds = cursor.execute(
            "SELECT kind, origin, label FROM lake.trips.feedback ORDER BY received_at"
        ).fetchall()
    assert kinds == [
        ("label", "review", True),
        ("correction", "review", False),
        ("skip", "review", None),
    ]


def actions(made: Deployment) -> list[Action]:
    about = ("give feedback", "answer review", "skip review")
    return [row.action for row in Audit(made.lake).verify() if row.action.what in about]


def test_who_labelled_what_stands_in_the_audit_one_row_a_call(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(actions(deployment))
    first, second, third = [row["trip"] for row in rows_of(29)[:3]]
    items = [of(first, True), of(second, False), of(third, True, kind="correction")]
    with deployment.client() as client:
        taken = give(client, *items).json()["ids"]
        assert give(client, {"label": True}).status_code == 400
        client.post("/predict/trips", json={"rows": rows_of(29)})
    labels(deployment)
    with deployment.client() as client:
        first, second, *_ = [
            e["prediction_id"] for e in client.get("/review/trips").json()["waiting"]
        ]
        client.post(f"/review/trips/{first}", json={"label": True, "by": "ada"})
    # The service has ended and its notes are delivered, each once; so is what the CLI says.
    monkeypatch.setenv("ML_PLATFORM_DATA", str(deployment.settings.data))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(deployment.settings.use_cases))
    monkeypatch.setenv("USER", "bob")
    assert CliRunner().invoke(app, ["review", "trips", "--skip", second]).exit_code == 0
    given, answered, skipped = actions(deployment)[before:]
    assert (given.who, given.channel) == ("anonymous@testclient", "api")
    assert given.use_case == "trips"
    assert given.object == "3 items of feedback"
    assert (given.details["labels"], given.details["corrections"]) == ("2", "1")
    assert given.details["ids"] == digest_of(taken)
    assert (answered.what, answered.who, answered.channel) == ("answer review", "ada", "api")
    assert answered.object == f"prediction {first}"
    assert (skipped.what, skipped.who, skipped.channel) == ("skip review", "bob", "cli")
    # What was given can be read from the table again, and whether any of it is gone.
    labels(deployment)
    with deployment.lake.cursor() as cursor:
        found = cursor.execute(
            "SELECT feedback_id FROM lake.trips.feedback WHERE received_at = ?::TIMESTAMPTZ",
            [given.details["received_at"]],
        ).fetchall()
    assert digest_of(name for (name,) in found) == given.details["ids"]


def test_what_was_noted_before_a_kill_is_delivered_by_the_next_service(
    deployment: Deployment,
) -> None:
    before = len(actions(deployment))
    notes = AuditNotes(deployment.settings, deployment.lake)
    notes.note(Action("ada", "api", "give feedback", "trips", "1 items of feedback"))
    # As the system does when a process ends, whatever ended it.
    assert notes._segments._segment is not None
    os.close(notes._segments._segment.file)
    with deployment.client():
        pass
    assert [action.who for action in actions(deployment)[before:]] == ["ada"]


def test_what_nobody_has_written_yet_is_ingested_as_nothing(deployment: Deployment) -> None:
    for source in ("requests", "refusals", "feedback"):
        report = ingest(deployment.lake, deployment.use_case, source, DAY, COMMIT)
        assert [counts.landed for counts in report.windows.values()] == [0]
    assert len(labels(deployment)) == 40


@pytest.mark.exhaustive
def test_classes_are_logged_measured_and_reviewed(tmp_path: Path) -> None:
    made = declare(deploy(tmp_path, "multiclass"), "serving: {log: {}, review: {below: 0.99999}}\n")
    made.promote(20)
    published(made)
    case, lake = made.use_case, made.lake
    with made.client() as client:
        answered = client.post("/predict/trips", json={"rows": rows_of(29)}).json()["predictions"]
        said = {"prediction_id": answered[0]["id"], "label": "late"}
        assert give(client, said).status_code == 202
        assert give(client, {**said, "label": True}).status_code == 400
        refused = give(client, said, {**said, "label": "Early"})
        assert (refused.status_code, refused.json()["field"]) == (422, "label")
        assert refused.json()["detail"].endswith("Did you mean 'early'?")
    assert labels(made)[rows_of(29)[0]["trip"]] == "late"
    score(lake, made.registry, case, DAY, COMMIT)
    batch = report_performance(lake, case, DAY, COMMIT, now=NOW).windows[DAY]
    live = report_performance(lake, case, DAY, COMMIT, now=NOW, live=True).windows[DAY]
    assert live.metrics == batch.metrics
    # The answer came later than what is reported: until then the source said otherwise.
    assert live.labelled == 40
    assert compare_online(lake, case, DAY) == Skew(40, {})
    uncertain = {p["id"] for p in answered if max(p["probabilities"].values()) < 0.99999}
    assert len(uncertain - {answered[0]["id"]}) > 0
    with made.client() as client:
        waiting = client.get("/review/trips").json()["waiting"]
        assert {each["prediction_id"] for each in waiting} == uncertain - {answered[0]["id"]}
        path = f"/review/trips/{waiting[0]['prediction_id']}"
        assert client.post(path, json={"label": "Late"}).status_code == 422
    where = {
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
    }
    said = CliRunner(env=where).invoke(
        app, ["review", "trips", "--answer", waiting[0]["prediction_id"], "Late"]
    )
    assert (said.exit_code, str(said.exception)[-20:]) == (1, "Did you mean 'late'?")
    lake.close()
