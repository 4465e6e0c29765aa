"""Servers of others over TLS: certificates and names are checked, and nothing is sent in clear."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import (
    LakeError,
    NotPublished,
    OnlineStoreError,
    PlatformError,
    RegistryError,
    TargetError,
    Unavailable,
)
from ml_platform.features import open_online_store
from ml_platform.publish.opening import opened_target
from ml_platform.registry.aliases import read_alias
from ml_platform.registry.tracking import answering, open_client
from ml_platform.settings import Settings
from ml_platform.storage import Lake, attach_database
from tests import tls_servers
from tests.tls_servers import HOST, PASSWORD, Certificates, certificates

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

UNTRUSTED = r"(?i)certificate"
"""In the words of each client."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def servers(files: Certificates) -> Iterator[Any]:
    """Returns the port of a server by its kind, which is started once."""
    with ExitStack() as stack:
        ports: dict[str, int] = {}

        def port(kind: str) -> int:
            if kind not in ports:
                ports[kind] = stack.enter_context(getattr(tls_servers, f"tls_{kind}")(files))
            return ports[kind]

        yield port


def catalog(settings: Settings, files: Certificates, port: int, host: str, trusted: Path) -> None:
    """Make a lake whose catalog is in PostgreSQL, and write to it."""
    where = f"host={host} port={port} user=ada password={PASSWORD} dbname=postgres"
    where += f" sslmode=verify-full sslrootcert={trusted}"
    lake = Lake(settings.model_copy(update={"catalog": f"postgres:{where}"}))
    try:
        with lake.cursor() as cursor:
            cursor.execute("CREATE SCHEMA IF NOT EXISTS lake.tls")
            assert cursor.execute("SELECT 7").fetchone() == (7,)
    finally:
        lake.close()


def mysql_source(
    settings: Settings, files: Certificates, port: int, host: str, trusted: Path
) -> None:
    """Read a table of MariaDB as a source does."""
    lake = Lake(_with_mysql(settings, port, host, trusted, "verify_ca"))
    try:
        with lake.cursor() as cursor:
            attach_database(cursor, lake.settings, "shop")
            assert cursor.execute("SELECT ride FROM shop.app.rides").fetchone() == (7,)
    finally:
        lake.close()


def mysql_target(
    settings: Settings, files: Certificates, port: int, host: str, trusted: Path
) -> None:
    """Open MariaDB as publishing does."""
    named = _with_mysql(settings, port, host, trusted, "verify_identity")
    with opened_target(named, "shop") as target, target.exclusive("tls"):
        pass


def _with_mysql(settings: Settings, port: int, host: str, trusted: Path, mode: str) -> Settings:
    where = f"mysql:host={host} port={port} user=ada password={PASSWORD} database=app"
    where += f" ssl_mode={mode} ssl_ca={trusted}"
    return Settings(**{**settings.model_dump(), "databases": {"shop": where}})


def redis(settings: Settings, files: Certificates, port: int, host: str, trusted: Path) -> None:
    """Ask the online store which rows it has."""
    url = f"rediss://:{PASSWORD}@{host}:{port}/0?ssl_ca_certs={trusted}"
    store = open_online_store(settings.model_copy(update={"online_store": url}))
    try:
        with pytest.raises(NotPublished):
            store.count("tls", "view")
    finally:
        store.close()


def s3(settings: Settings, files: Certificates, port: int, host: str, trusted: Path) -> None:
    """Write a data file of the lake to an object store, and read it."""
    secret = (
        f"CREATE SECRET (TYPE s3, KEY_ID 'key-id', SECRET '{PASSWORD}', REGION 'us-east-1', "
        f"ENDPOINT '{host}:{port}', URL_STYLE 'path')"
    )
    changed = {
        "lake_files": f"s3://lake/{trusted.stem}-{host}/", "extensions": ("httpfs",),
        "secrets_sql": secret, "object_store_ca": trusted,
    }  # fmt: skip
    lake = Lake(Settings(**{**settings.model_dump(), **changed}))
    try:
        with lake.cursor() as cursor:
            cursor.execute(
                "CREATE SCHEMA lake.tls; CREATE TABLE lake.tls.rides AS SELECT 7 AS ride"
            )
            assert cursor.execute("SELECT ride FROM lake.tls.rides").fetchone() == (7,)
    finally:
        lake.close()


def mlflow_aliases(
    settings: Settings, files: Certificates, port: int, host: str, trusted: Path
) -> None:
    """Ask for an alias, which is done without MLflow's client."""
    changed = {"mlflow_tracking_uri": f"https://{host}:{port}"}
    assert read_alias(settings.model_copy(update=changed), "tls", "champion") is None


def mlflow(settings: Settings, files: Certificates, port: int, host: str, trusted: Path) -> None:
    """Ask the registry by MLflow's own client."""
    changed = {"mlflow_tracking_uri": f"https://{host}:{port}"}
    by_mlflow = settings.model_copy(update=changed)
    with answering(by_mlflow):
        assert open_client(by_mlflow).search_registered_models() == []


CLIENTS = {
    "a catalog in PostgreSQL": ("postgres", catalog, LakeError),
    "a source in MySQL": ("mariadb", mysql_source, LakeError),
    "a target in MySQL": ("mariadb", mysql_target, TargetError),
    "an online store in Redis": ("redis", redis, OnlineStoreError),
    "data files in S3": ("s3", s3, LakeError),
    "aliases in MLflow": ("mlflow", mlflow_aliases, RegistryError),
    "models in MLflow": ("mlflow", mlflow, RegistryError),
}


@pytest.mark.parametrize(
    "name",
    [
        # MLflow's server takes up to two minutes to start on a busy machine.
        pytest.param(name, marks=[pytest.mark.exhaustive] * ("MLflow" in name))
        for name in CLIENTS
    ],
)
def test_a_server_is_taken_by_its_certificate_and_name_alone(
    name: str,
    servers: Any,
    files: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, use, error = CLIENTS[name]
    port = servers(kind)

    def tried(host: str, trusted: Path) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(trusted))
        # MLflow's client asks again for two minutes, whatever the answer was.
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        settings = Settings(data=tmp_path / f"{trusted.stem}-{host}", server_wait_seconds=600)
        use(settings, files, port, host, trusted)

    tried(HOST, files.authority)
    refused = [(HOST, files.stranger)]
    if use is not mysql_source:
        # DuckDB does not compare names there: the next test.
        refused.append(("localhost", files.authority))
    for host, trusted in refused:
        with pytest.raises(error, match=UNTRUSTED) as refusal:
            tried(host, trusted)
        assert isinstance(refusal.value, PlatformError)
        # Which would be tried again for as long as a server may stay unavailable.
        assert not isinstance(refusal.value, Unavailable)
        assert PASSWORD not in str(refusal.value)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("ssl_mode=verify_identity ssl_ca=ca.pem", "ssl_mode=verify_identity cannot be held"),
        ("ssl_mode=VERIFY_IDENTITY", "ssl_mode=verify_identity cannot be held"),
        ("ssl_mode=verify_ca", "ssl_mode=verify_ca needs ssl_ca"),
    ],
)
def test_what_duckdb_would_not_check_of_mysql_is_refused(
    tmp_path: Path, mode: str, said: str
) -> None:
    where = f"mysql:host={HOST} port=1 user=ada password={PASSWORD} database=app {mode}"
    lake = Lake(Settings(data=tmp_path, databases={"shop": where}))
    try:
        with lake.cursor() as cursor, pytest.raises(LakeError, match=said):
            attach_database(cursor, lake.settings, "shop")
    finally:
        lake.close()
