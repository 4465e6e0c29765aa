"""A landing folder that is a URL: what the service writes is brought there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ml_platform.serving.records.outbox import Outbox, written_below
from ml_platform.serving.records.review import ReviewQueue
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests.azure_store import AZURITE, azurite
from tests.object_stores import s3_thread
from tests.served import LOGGED, Deployment, declare, deploy, published, rows_of
from tests.trips_use_case import COMMIT, days

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Store:
    """An object store of its own, and a deployment whose landing folder is a bucket in it."""

    create: Callable[[str], object]
    """Makes a bucket."""
    deployment: Deployment

    @property
    def objects(self) -> list[str]:
        landing = self.deployment.settings.landing_uri
        with self.deployment.lake.cursor() as cursor:
            listed = f"SELECT filename FROM read_blob('{landing}/**/*.jsonl')"
            return [
                name.removeprefix(f"{landing}/") for (name,) in cursor.execute(listed).fetchall()
            ]

    @property
    def waiting(self) -> list[str]:
        """Files that are still here."""
        made = self.deployment
        folder = written_below(made.settings, made.use_case)
        return [str(path.relative_to(folder)) for path in folder.rglob("*.jsonl")]


@contextmanager
def s3(folder: Path) -> Iterator[tuple[dict[str, Any], Callable[[str], object]]]:
    with s3_thread() as store:
        secret = SecretStr(store.secret_sql)
        yield (
            {"landing": "s3://landing", "extensions": ("httpfs",), "secrets_sql": secret},
            lambda bucket: store.client.create_bucket(Bucket=bucket),
        )


@contextmanager
def azure(folder: Path) -> Iterator[tuple[dict[str, Any], Callable[[str], object]]]:
    with azurite(folder / "azurite") as store:
        secret = SecretStr(store.secret_sql)
        yield (
            {"landing": "az://landing", "extensions": ("azure",), "secrets_sql": secret},
            store.create,
        )


WITHOUT_AZURITE = pytest.mark.skipif(AZURITE is None, reason="Azurite is not installed")


@pytest.fixture(scope="module", params=[s3, pytest.param(azure, marks=WITHOUT_AZURITE)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    made = declare(deploy(tmp_path_factory.mktemp("outbox")), LOGGED)
    made.promote(20)
    published(made)
    made.lake.close()
    with request.param(made.root) as (changes, create):
        remote = made.settings.model_copy(update=changes)
        lake = Lake(remote)
        yield Store(create, Deployment(made.root, remote, lake, made.registry, made.use_case))
        lake.close()


def ingested(lake: Lake, case: UseCase, source: str) -> int:
    report = ingest(lake, case, source, days(29, 29), COMMIT)
    (counts,) = report.windows.values()
    assert counts.landed == counts.ingested
    return counts.ingested


def test_what_cannot_be_brought_stays_and_is_brought_later(store: Store) -> None:
    made = store.deployment
    # There is no such bucket yet.
    with made.client() as client:
        answer = client.post("/predict/trips", json={"rows": rows_of(29)})
        assert answer.status_code == 200
    assert len(store.waiting) == 1
    store.create("landing")
    outbox = Outbox(made.lake, [made.use_case])
    outbox.empty()
    assert store.waiting == []
    (name,) = store.objects
    assert name.startswith("trips/requests/")
    # Brought a second time by nobody.
    outbox.empty()
    assert store.objects == [name]
    assert ingested(made.lake, made.use_case, "requests") == len(rows_of(29))


def test_answers_of_reviewers_count_from_the_moment_they_are_given(store: Store) -> None:
    made = store.deployment
    reviews = ReviewQueue(made.lake, [made.use_case])
    first, second, *others = [each.prediction_id for each in reviews.waiting("trips")]
    with made.client() as client:
        assert client.post(f"/review/trips/{first}", json={"label": True}).status_code == 202
        # Here, in a file that is appended to.
        assert [each.prediction_id for each in reviews.waiting("trips")] == [second, *others]
    # There, and not ingested yet.
    assert store.waiting == []
    assert [each.prediction_id for each in reviews.waiting("trips")] == [second, *others]
    assert ingested(made.lake, made.use_case, "feedback") == 1
    assert [each.prediction_id for each in reviews.waiting("trips")] == [second, *others]
