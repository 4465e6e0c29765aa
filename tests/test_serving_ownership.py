"""Who may only predict gives labels of what was answered to them, and of nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import tritonclient.grpc as over_grpc
from starlette.testclient import TestClient

from ml_platform.access import Grant, Ownership, Role, create_key
from ml_platform.errors import RequestRefused
from ml_platform.serving.calls import PredictionIds, event_time_of
from ml_platform.storage import Lake
from tests.served import LOGGED, ROW, Deployment, declare, deploy, published, records, rows_of
from tests.test_serving_grpc import inputs
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

INVOKE, FEEDBACK = "/mlflow/trips/invocations", "/feedback/trips"
BODY = {"dataframe_records": [ROW, ROW]}
LACKS = "lacks the permission 'label' for 'trips'; a role that has it: labeller, operator, admin"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = declare(deploy(tmp_path_factory.mktemp("ownership")), LOGGED)
    made.promote(20)
    published(made)
    yield made
    made.lake.close()


def kept(made: Deployment) -> list[tuple[str | None, str]]:
    """What was taken so far."""
    found = records(Path(made.settings.landing_uri) / "trips" / "feedback")
    return [(each["prediction_id"], each["kind"]) for each in found]


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> Iterator[TestClient]:
    with deployment.client(authentication=True, failures_burst=100_000) as client:
        yield client


def key_of(made: Deployment, role: Role, name: str = "shop", use_case: str = "trips") -> Any:
    """Headers with a new key."""
    expires_at = datetime.now(UTC) + timedelta(days=1)
    _, text = create_key(
        made.lake, name, [Grant(role, use_case)], expires_at=expires_at, created_by="ada",
        commit=COMMIT,
    )  # fmt: skip
    return {"authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def shop(deployment: Deployment) -> Any:
    return key_of(deployment, "predictor")


@pytest.fixture(scope="module")
def other(deployment: Deployment) -> Any:
    """Another key, of the same name."""
    return key_of(deployment, "predictor")


@pytest.fixture(scope="module")
def labeller(deployment: Deployment) -> Any:
    return key_of(deployment, "labeller")


@pytest.fixture(scope="module", autouse=True)
def ring(client: TestClient, shop: Any, other: Any, labeller: Any) -> None:
    """Every key is known to the service."""
    for headers in (shop, other, labeller):
        while client.get("/v2/models/trips", headers=headers).status_code != 200:
            pass


def predicted(client: TestClient, headers: Any) -> str:
    """The id of the first of two rows."""
    answer = client.post(INVOKE, json=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-prediction-id"])


def say(client: TestClient, headers: Any, *items: Any) -> tuple[int, str]:
    answer = client.post(FEEDBACK, json={"items": list(items)}, headers=headers)
    return answer.status_code, answer.json().get("detail", "")


def by_id(prediction: Any, **more: Any) -> dict[str, Any]:
    return {"prediction_id": prediction, "label": True, **more}


BY_KEY = {"trip": 1, "event_time": "2024-03-29T12:00:00Z", "label": True}


def test_own_predictions_need_no_more_than_predict(
    client: TestClient, deployment: Deployment, shop: Any
) -> None:
    first = predicted(client, shop)
    second = first.removesuffix("-0") + "-1"
    assert say(client, shop, by_id(first), by_id(second)) == (202, "")
    # What one has said of them one may correct.
    assert say(client, shop, by_id(first, label=False, kind="correction")) == (202, "")
    assert kept(deployment)[-3:] == [(first, "label"), (second, "label"), (first, "correction")]


def test_what_was_answered_to_others_needs_label_and_nothing_of_it_is_taken(
    client: TestClient, deployment: Deployment, shop: Any, other: Any, labeller: Any
) -> None:
    own, others, before = predicted(client, shop), predicted(client, other), kept(deployment)
    status, detail = say(
        client, shop, by_id(own), by_id(others), BY_KEY, by_id(others, kind="correction")
    )
    assert status == 403
    assert detail == (
        "items 1, 2, 3: not named by the id of a prediction that was answered to you, and shop "
        + LACKS
    )
    assert kept(deployment) == before
    items = by_id(own), by_id(others), BY_KEY, by_id(others, kind="correction")
    assert say(client, labeller, *items) == (202, "")
    assert len(kept(deployment)) == len(before) + 4


def test_an_id_that_was_tampered_with_is_nobodys(client: TestClient, shop: Any, other: Any) -> None:
    own, others = predicted(client, shop), predicted(client, other)
    begun, worker, mark, moment, row = own.split("-")
    foreign = others.split("-")
    for made_up in (
        "-".join([begun, worker, moment, row]),
        "-".join([begun, worker, "0" * 16, moment, row]),
        "-".join([*foreign[:2], mark, *foreign[3:]]),
        "-".join([begun, worker, foreign[2], moment, row]),
    ):
        status, detail = say(client, shop, by_id(made_up))
        assert (status, detail.startswith("item 0: not named by")) == (403, True), made_up
    for item in (by_id("nonsense"), by_id(7), {}, {**BY_KEY, "prediction_id": None}):
        assert say(client, shop, item)[0] == 403, item
    assert say(client, shop, "nonsense")[0] == 400
    # With something else besides, an id proves nothing about that.
    assert say(client, shop, {**BY_KEY, **by_id(own)})[0] == 400


def test_reviews_and_the_feedback_of_readers_and_strangers_need_label(
    client: TestClient, deployment: Deployment, shop: Any, labeller: Any
) -> None:
    own = predicted(client, shop)
    answer = client.post(f"/review/trips/{own}", json={"label": True}, headers=shop)
    assert (answer.status_code, answer.json()["permission"]) == (403, "label")
    assert client.get("/review/trips", headers=shop).status_code == 403
    reader = key_of(deployment, "reader")
    stranger = key_of(deployment, "predictor", use_case="flights")
    for headers in (reader, stranger):
        while (said := say(client, headers, by_id(own)))[0] == 401:
            pass
        assert said == (403, f"shop {LACKS}")


def test_every_worker_and_replica_knows_what_the_others_answered(
    client: TestClient, deployment: Deployment, shop: Any, other: Any
) -> None:
    with deployment.client(authentication=True) as replica:
        assert say(replica, shop, by_id(predicted(client, shop))) == (202, "")
        assert say(client, shop, by_id(predicted(replica, shop))) == (202, "")
        assert say(replica, shop, by_id(predicted(client, other)))[0] == 403


def test_a_prediction_over_grpc_is_its_callers(deployment: Deployment, shop: Any) -> None:
    with deployment.served(authentication=True) as served, deployment.client() as anybody:
        asked = over_grpc.InferenceServerClient(served.grpc)
        answer = asked.infer("trips", inputs(over_grpc.InferInput), headers=shop).get_response()
        prediction = answer.parameters["prediction_id"].string_param
        assert len(prediction.split("-")) == 5
        # Where nobody has to say who they are, everything is anybody's.
        assert say(anybody, {}, by_id(prediction), BY_KEY)[0] == 202
        assert len(predicted(anybody, {}).split("-")) == 4


def test_without_a_secret_predictions_are_answered_and_nobodys(
    deployment: Deployment, shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Ownership) -> None:
        raise PermissionError("the lake is not to be written to")

    monkeypatch.setattr(Ownership, "refresh", refuse)
    with deployment.client(authentication=True, failures_burst=100_000) as client:
        # The lake may be locked by somebody when it starts: keys are read a moment later.
        while client.get("/v2/models/trips", headers=shop).status_code == 503:
            pass
        own = predicted(client, shop)
        assert len(own.split("-")) == 4
        assert say(client, shop, by_id(own))[0] == 403
        # Keys are followed all the same.
        late = key_of(deployment, "labeller")
        while (said := say(client, late, by_id(own)))[0] == 401:
            pass
        assert said == (202, "")


def test_ids_of_rows_by_key_keep_their_event_time(client: TestClient, shop: Any) -> None:
    row = rows_of(29)[0]
    answer = client.post("/predict/trips", json={"rows": [row]}, headers=shop).json()
    found = event_time_of(answer["predictions"][0]["id"])
    assert found == datetime.fromisoformat(row["started_at"])


def test_ids_of_one_request_share_a_mark_that_is_of_caller_and_use_case(lake: Lake) -> None:
    ownership = Ownership(lake)
    ids = PredictionIds(ownership)
    # Before there is a secret, ids have no mark and are nobody's.
    (unmarked,) = ids.name([0], "trips", "key:ada")
    assert not ids.is_of(unmarked, "trips", "key:ada")
    ownership.refresh()
    first, second = ids.name([0, -1], "trips", "key:ada")
    assert first.split("-")[:3] == second.split("-")[:3]
    assert ids.is_of(first, "trips", "key:ada")
    assert ids.is_of(second, "trips", "key:ada")
    assert not ids.is_of(first, "flights", "key:ada")
    assert not ids.is_of(first, "trips", "key:bob")
    assert not ids.is_of("nonsense", "trips", "key:ada")
    with pytest.raises(RequestRefused):
        event_time_of("nonsense")
    # Where the principal ends is part of the mark.
    assert ownership.mark("key:a", "bc") != ownership.mark("key:ab", "c")


def test_processes_that_begin_at_once_share_one_secret(lake: Lake) -> None:
    lakes = [Lake(lake.settings) for _ in range(4)]
    owners, together = [Ownership(each) for each in lakes], Barrier(4)

    def begin(owner: Ownership) -> None:
        together.wait()
        owner.refresh()

    threads = [Thread(target=begin, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marks = {owner.mark("key:ada", "x") for owner in owners}
    for each in lakes:
        each.close()
    assert len(marks) == 1
    assert None not in marks
