"""Two instances on one lake: what they share, and what becomes of one that the lake is cut off."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from ml_platform.access import Audit, Grant, create_key, revoke_key
from ml_platform.serving.records.feedback import digest_of
from ml_platform.settings import Settings
from ml_platform.training import train
from tests.kept_models import promote
from tests.nginx_front import BODY, Load, nginx
from tests.served import (
    LOGGED,
    Deployment,
    declare,
    deploy,
    published,
    records,
    rows_of,
)
from tests.service_processes import Instance, serving, wait_for
from tests.severed import Proxy
from tests.trips_use_case import COMMIT, at

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Replicas:
    """A deployment whose instances have a data folder each, and one lake."""

    made: Deployment
    database: str
    """Of PostgreSQL, which holds the catalog."""
    server: str
    """The socket of that."""

    @contextmanager
    def instance(
        self, number: int, *, proxy: Proxy | None = None, is_awaited: bool = True, **changes: str
    ) -> Iterator[Instance]:
        """One of the instances; with a proxy it reaches the catalog by that alone."""
        settings = self.settings(number)
        assert settings.catalog is not None
        catalog = settings.catalog
        if proxy is not None:
            host, port = proxy.listen
            catalog = f"postgres:host={host} port={port} user=postgres dbname={self.database}"
        more = {
            "ML_PLATFORM_DATA": str(settings.data),
            "ML_PLATFORM_CATALOG": catalog,
            "ML_PLATFORM_LAKE_FILES": settings.lake_files_uri,
            "ML_PLATFORM_LANDING": settings.landing_uri,
            "ML_PLATFORM_MLFLOW_TRACKING_URI": settings.tracking_uri,
            "ML_PLATFORM_DAGSTER_URL": "http://127.0.0.1:9",
        }
        changes = {"FOLLOW_SECONDS": "0.2", "LONGEST_WAIT_SECONDS": "60", **changes}
        with serving(self.made, workers=1, more=more, is_awaited=is_awaited, **changes) as instance:
            yield instance

    def settings(self, number: int) -> Settings:
        """Of an instance: everything that is not named is below its data folder."""
        # Not a copy, which would have what is derived from the data folder along.
        known = self.made.settings.model_dump()
        return Settings(**{**known, "data": self.made.root / f"instance-{number}"})

    def promote_second(self) -> None:
        """Have version 2 serve from now on."""
        promote(self.made.lake, self.made.use_case, 2, datetime.now(UTC))

    def key(self, role: str, name: str = "ada") -> tuple[str, str]:
        """The id of a new key, and what is sent of it."""
        key, text = create_key(
            self.made.lake, name, [Grant(role, "trips")], created_by="ada", commit=COMMIT,
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )  # fmt: skip
        return key.id, text

    def notified(self) -> Counter[str]:
        """What the audit calls each call of feedback."""
        rows = Audit(self.made.lake).rows(what="give feedback")
        return Counter(str(row.action.details["ids"]) for row in rows)

    def landed(self, source: str) -> list[dict[str, object]]:
        return records(Path(self.made.settings.landing_uri) / "trips" / source)


@pytest.fixture
def replicas(tmp_path: Path, postgres: object) -> Iterator[Replicas]:
    postgres.psql("CREATE DATABASE replicas;")
    uri = postgres.get_uri("replicas")
    folder = tmp_path / "shared"
    tracking = Settings(data=folder).tracking_uri
    made = declare(
        deploy(
            tmp_path,
            catalog=f"postgres:{uri}",
            lake_files=f"{folder}/files/",
            landing=f"{folder}/landing",
            mlflow_tracking_uri=tracking,
            mlflow_artifacts=(folder / "artifacts").as_uri(),
        ),
        LOGGED,
    )
    made.promote(20)
    train(made.lake, made.registry, made.use_case, at(25), COMMIT, tags={})
    socket = parse_qs(urlsplit(uri).query)["host"][0] + "/.s.PGSQL.5432"
    found = Replicas(made, "replicas", socket)
    for number in (1, 2):
        # Where instances have no Redis in common, each has to be published to.
        published(
            Deployment(made.root, found.settings(number), made.lake, made.registry, made.use_case)
        )
    yield found
    made.lake.close()
    postgres.psql("DROP DATABASE replicas WITH (FORCE);")


def ask(instance: Instance, path: str, key: str = "", **more: object) -> httpx2.Response:
    headers = {**({"x-api-key": key} if key else {}), **more.pop("headers", {})}
    method = "POST" if "json" in more else "GET"
    return httpx2.request(method, f"{instance.address}{path}", headers=headers, timeout=60, **more)


def predicted(instance: Instance, key: str = "") -> httpx2.Response:
    return ask(instance, "/invocations", key, json=BODY)


def metric(instance: Instance, name: str) -> float:
    page = ask(instance, "/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, name
    return float(found[1])


def wait_until_known(instances: Iterable[Instance], key: str) -> None:
    """Each answers once: a request that is refused for its key counts for nobody's rate."""
    for each in instances:
        wait_for(lambda each=each: predicted(each, key).status_code == 200, "known")


def test_keys_and_ownership_are_shared_and_rates_are_not(replicas: Replicas) -> None:
    with ExitStack() as stack:
        settings = {"AUTHENTICATION": "true", "REQUESTS_PER_SECOND": "0.001", "BURST": "3"}
        first, second = (stack.enter_context(replicas.instance(n, **settings)) for n in (1, 2))
        both = (first, second)
        _, key = replicas.key("predictor")
        wait_until_known(both, key)
        answer = predicted(first, key)
        item = {"prediction_id": answer.headers["x-prediction-id"], "label": True}
        assert ask(second, "/feedback/trips", key, json={"items": [item]}).status_code == 202
        # Three of each: what one has counted the other does not know.
        key_id, key = replicas.key("predictor", "bob")
        wait_until_known(both, key)
        for each in both:
            statuses = Counter(predicted(each, key).status_code for _ in range(10))
            assert statuses[429] >= 8
            assert statuses[200] >= 1
        revoke_key(replicas.made.lake, key_id, revoked_by="ada", commit=COMMIT)
        wait_for(lambda: all(predicted(each, key).status_code == 401 for each in both), "revoked")
    (given,) = replicas.landed("feedback")
    assert given["given_by"] == "ada"


def test_an_answer_is_repeated_by_whichever_instance(replicas: Replicas) -> None:
    replicas.promote_second()
    with ExitStack() as stack:
        first, second = (stack.enter_context(replicas.instance(n)) for n in (1, 2))
        asked = {
            "path": "/control/trips/rollback",
            "json": {"reason": "worse", "serving": 2},
            "headers": {"Idempotency-Key": "back-to-1"},
        }
        given = ask(first, **asked)
        again = ask(second, **asked)
        assert given.status_code == again.status_code
        assert given.status_code in {200, 202}
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json() == given.json()
        wait_for(
            lambda: (
                {predicted(each).headers["x-model-version"] for each in (first, second)} == {"1"}
            ),
            "both serve what was decided",
        )
    assert sum(row.action.what == "roll back" for row in Audit(replicas.made.lake).rows()) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
def test_one_that_the_lake_is_cut_off_predicts_on_and_catches_up(
    replicas: Replicas, tmp_path: Path, is_silent: bool
) -> None:
    proxy = Proxy(("127.0.0.1", 0), replicas.server)
    given: list[str] = []

    def inform(instance: Instance) -> None:
        item = {"trip": 300_001, "event_time": "2024-03-30T04:00:00Z", "label": True}
        answer = ask(instance, "/feedback/trips", json={"items": [item]})
        assert answer.status_code == 202
        given.extend(answer.json()["ids"])

    with ExitStack() as stack:
        stack.callback(proxy.close)
        whole = stack.enter_context(replicas.instance(1))
        cut = stack.enter_context(replicas.instance(2, proxy=proxy))
        ports = tuple(int(each.address.rpartition(":")[2]) for each in (whole, cut))
        address = stack.enter_context(nginx(tmp_path, ports))
        load = stack.enter_context(Load(address).running())
        load.proceed()
        last_followed = metric(cut, "ml_platform_followed_timestamp_seconds")
        if is_silent:
            proxy.fall_silent()
        else:
            proxy.close()
        wait_for(lambda: metric(cut, "ml_platform_refresh_failures_total") > 0, "it is noticed")
        load.proceed()

        # What needs no lake.
        for each in (whole, cut):
            assert predicted(each).status_code == 200
            by_key = ask(each, "/predict/trips", json={"rows": rows_of(30)[:1]})
            assert by_key.status_code == 200, by_key.text
            assert by_key.json()["predictions"][0]["not_found"] == {}
            inform(each)
        # Predictions continue: taking it out of the traffic would stop all where all are cut off.
        assert ask(cut, "/health/ready").status_code == 200
        # What needs it, and is done or refused at once.
        refused = [
            ask(cut, path, json=body, headers=headers)
            for path, body in (
                ("/control/trips/rollback", {"reason": "worse"}),
                ("/control/trips/train", {"cutoff": "2024-03-25"}),
                ("/control/trips/approve", {"version": 2, "reason": "looked"}),
                ("/review/trips/000601fcbba0d8-0123456789-000612981d875000-0", {"label": True}),
            )
            for headers in ({}, {"Idempotency-Key": "once"})
        ]
        for answer in refused:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert re.search("lake|Dagster", answer.json()["detail"])

        replicas.promote_second()
        wait_for(lambda: predicted(whole).headers["x-model-version"] == "2", "followed")
        assert predicted(cut).headers["x-model-version"] == "1"
        behind = ask(cut, "/status/trips").json()["serving"]
        assert behind["version"] == 1
        assert behind["followed_seconds_ago"] > 0
        assert metric(cut, "ml_platform_followed_timestamp_seconds") >= last_followed

        proxy.close()
        proxy.open()
        wait_for(lambda: predicted(cut).headers["x-model-version"] == "2", "caught up")
        inform(cut)
        load.proceed()
        wait_for(
            lambda: replicas.notified() == Counter(digest_of([each]) for each in given),
            "the audit has each once",
        )
    assert load.failed == [], (tmp_path / "error.log").read_text()
    kept = Counter(str(each["prediction_id"]) for each in replicas.landed("requests"))
    assert set(kept.values()) == {1}
    assert len(kept) >= load.answered
    assert Counter(str(each["feedback_id"]) for each in replicas.landed("feedback")) == Counter(
        given
    )


@pytest.mark.exhaustive
def test_one_that_starts_without_the_lake_is_ready_once_that_is_there(replicas: Replicas) -> None:
    proxy = Proxy(("127.0.0.1", 0), replicas.server)
    proxy.close()
    _, key = replicas.key("predictor")
    with ExitStack() as stack:
        stack.callback(proxy.close)
        starting = replicas.instance(1, proxy=proxy, is_awaited=False, AUTHENTICATION="true")
        instance = stack.enter_context(starting)

        def lives() -> bool:
            try:
                return ask(instance, "/health/live").status_code == 200
            except httpx2.TransportError:
                return False

        wait_for(lives, "it answers")
        assert not instance.is_ready()
        answer = predicted(instance, key)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        proxy.open()
        wait_for(instance.is_ready, "ready")
        wait_for(lambda: predicted(instance, key).status_code == 200, "predicts")
