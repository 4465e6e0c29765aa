"""Files of a model that are not those that were registered: never loaded, and reported."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pandas as pd
import pytest
from mlflow import MlflowClient
from starlette.testclient import TestClient

from ml_platform.alerts import find_conditions
from ml_platform.registry import Registry, record, serving_events
from ml_platform.registry.promotions import Decision, Promotion
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.training import train
from tests.served import ROW, Deployment, deploy
from tests.test_serving_swaps import wait_for
from tests.trips_use_case import COMMIT, at

pytestmark = pytest.mark.slow

BODY = {"dataframe_records": [ROW]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Versions 1 and 2, of which the first serves."""
    made = deploy(tmp_path_factory.mktemp("artifacts"))
    for day in (14, 17):
        train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
    yield made
    made.lake.close()


@dataclass(frozen=True)
class Attack:
    """The files of version 2, and a folder that its code would make if it ran."""

    made: Deployment
    files: Path
    ran: Path

    def pickle(self) -> bytes:
        """A pickle that makes the folder when it is loaded."""
        return pickle.dumps(Running(str(self.ran)))

    def decide(self, version: int) -> None:
        """Somebody has a version serve from now on; a promotion is made once, a return often."""
        made, now = self.made, pd.Timestamp.now("UTC").to_pydatetime()
        decisions: tuple[Decision, ...] = ("promoted", "rolled back")
        assert any(
            record(
                made.lake, made.use_case,
                Promotion(version, now, now, "ada", decision, "as the test wants it"), COMMIT,
            )
            for decision in decisions
        )  # fmt: skip


class Running:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self._folder,)


@pytest.fixture
def attack(trained: Deployment, tmp_path: Path) -> Iterator[Attack]:
    client = MlflowClient(tracking_uri=trained.settings.tracking_uri)
    source = client.get_model_version("trips", "2").source
    files = Path(source.removeprefix("file://"))
    kept = tmp_path / "kept"
    shutil.copytree(files, kept)
    made = Attack(trained, files, tmp_path / "ran")
    made.decide(1)
    yield made
    shutil.rmtree(files)
    shutil.copytree(kept, files)


def change_a_byte(attack: Attack, name: str = "model.pkl") -> None:
    content = bytearray((attack.files / name).read_bytes())
    content[len(content) // 2] ^= 1
    (attack.files / name).write_bytes(bytes(content))


def swap_the_pickle(attack: Attack) -> None:
    (attack.files / "model.pkl").write_bytes(attack.pickle())


def link_to_another(attack: Attack) -> None:
    other = attack.ran.with_name("other.pkl")
    other.write_bytes(attack.pickle())
    (attack.files / "model.pkl").unlink()
    (attack.files / "model.pkl").symlink_to(other)


def append_to_the_pickle(attack: Attack) -> None:
    with (attack.files / "model.pkl").open("ab") as file:
        file.write(attack.pickle())


def change_the_reference(attack: Attack) -> None:
    change_a_byte(attack, "reference.parquet")


def change_the_facts(attack: Attack) -> None:
    facts = json.loads((attack.files / "model_version.json").read_text())
    facts["classes"] = facts["classes"][::-1]
    (attack.files / "model_version.json").write_text(json.dumps(facts))


def remove_a_file(attack: Attack) -> None:
    (attack.files / "model.pkl").unlink()


def put_a_folder_in_its_place(attack: Attack) -> None:
    (attack.files / "model.pkl").unlink()
    (attack.files / "model.pkl").mkdir()
    (attack.files / "model.pkl" / "model.pkl").write_bytes(attack.pickle())


def empty_it(attack: Attack) -> None:
    (attack.files / "model.pkl").write_bytes(b"")


CHANGES = [
    change_a_byte, swap_the_pickle, link_to_another, append_to_the_pickle, change_the_reference,
    change_the_facts, remove_a_file, put_a_folder_in_its_place, empty_it,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_after_it_was_registered_is_not_loaded(
    attack: Attack, change: Callable[[Attack], None]
) -> None:
    made = attack.made
    live = LiveVersions(made.lake, Registry(made.settings), [made.use_case])
    live.refresh()
    change(attack)
    attack.decide(2)
    (swap,) = live.refresh()
    assert (swap.version, swap.replaced) == (2, 1)
    assert swap.problem
    assert live.model("trips").version == 1
    assert not attack.ran.exists()


def test_the_reason_names_the_file_and_what_to_do(attack: Attack) -> None:
    change_a_byte(attack)
    attack.decide(2)
    made = attack.made
    swap, instead = LiveVersions(made.lake, Registry(made.settings), [made.use_case]).refresh()
    assert (instead.version, instead.problem) == (1, None)
    assert swap.problem
    assert swap.problem.startswith("trips version 2: model.pkl has digest ")
    assert swap.problem.endswith(
        "Restore it (ml-platform repair --backup …), or train the version again"
    )


def test_a_version_that_nobody_signed_is_not_loaded(attack: Attack) -> None:
    made = attack.made
    client = MlflowClient(tracking_uri=made.settings.tracking_uri)
    signed = client.get_model_version("trips", "2")
    client.delete_model_version_tag("trips", "2", "digests")
    attack.decide(2)
    swap, instead = LiveVersions(made.lake, Registry(made.settings), [made.use_case]).refresh()
    assert (instead.version, instead.problem) == (1, None)
    assert swap.problem
    assert "none was recorded" in swap.problem
    client.set_model_version_tag("trips", "2", "digests", signed.tags["digests"])


def test_files_that_were_added_are_not_looked_at(attack: Attack) -> None:
    for name in ("sklearn.py", "sitecustomize.py", "__init__.py", "model.py"):
        (attack.files / name).write_text(f"import os; os.mkdir({str(attack.ran)!r})\n")
    (attack.files / "python_model.pkl").write_bytes(attack.pickle())
    # How MLflow itself would be made to load something else.
    mlmodel = attack.files / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("model.pkl", "python_model.pkl"))
    attack.decide(2)
    made = attack.made
    live = LiveVersions(made.lake, Registry(made.settings), [made.use_case])
    (swap,) = live.refresh()
    assert (swap.version, swap.problem) == (2, None)
    assert not attack.ran.exists()


@pytest.mark.slow
def test_a_running_service_continues_with_the_version_before_and_says_why(attack: Attack) -> None:
    made = attack.made
    with made.served() as served, httpx2.Client(base_url=f"http://{served.http}") as client:
        swap_the_pickle(attack)
        attack.decide(2)
        wait_for(lambda: "2" in serving(client)["failed"])
        assert serving(client)["version"] == 1
        assert "it is not loaded" in serving(client)["failed"]["2"]
        answer = client.post("/invocations", json=BODY)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
        assert client.get("/health/ready").status_code == 200
        assert 'ml_platform_version_failed{use_case="trips"} 1.0' in client.get("/metrics").text
        wait_for(lambda: notified(made) != [])
    assert notified(made) == ["Version 2 of trips cannot be served"]
    event = serving_events(made.lake, made.use_case)[-1]
    assert (event.version, event.kind) == (2, "failed")
    assert not attack.ran.exists()


def test_a_service_that_starts_with_it_serves_the_version_before_and_says_why(
    attack: Attack,
) -> None:
    swap_the_pickle(attack)
    attack.decide(2)
    with attack.made.client() as client:
        assert client.get("/health/ready").status_code == 200
        assert serving(client)["version"] == 1
        assert "it is not loaded" in serving(client)["failed"]["2"]
        answer = client.post("/invocations", json=BODY)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")
        assert 'ml_platform_version_failed{use_case="trips"} 1.0' in client.get("/metrics").text
    assert not attack.ran.exists()


def serving(client: "httpx2.Client | TestClient") -> dict:
    return client.get("/status/trips").json()["serving"]


def notified(made: Deployment) -> list[str]:
    now = pd.Timestamp.now("UTC").to_pydatetime()
    found = find_conditions(made.lake, made.use_case, now).conditions
    return [c.title for c in found if c.kind == "serving"]
