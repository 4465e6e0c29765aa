"""Object stores that lakes of others are in: S3 by moto, Azure's Blob Storage by Azurite."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import boto3
import pyarrow.fs as pafs
from botocore.client import BaseClient
from moto.server import ThreadedMotoServer

from tests.azure_store import ACCOUNT, KEY, azurite
from tests.dagster_servers import free_port

SECRET = "hush-hush/7"


@dataclass(frozen=True)
class ObjectStore:
    """A running store with an empty bucket, or container, `lakes`."""

    url: str
    options: str
    """As a setting names them."""
    secret_sql: str
    """What DuckDB reads it with."""
    delta: Mapping[str, str]
    iceberg: str
    """Properties of a catalog, warehouse included, as a setting names them."""
    files: pafs.FileSystem
    iceberg_files: Mapping[str, str] = field(default_factory=dict)
    """Properties of a catalog that its other clients read the store with."""


class S3(NamedTuple):
    """A running S3 without buckets."""

    authority: str
    """Host and port."""
    client: BaseClient
    secret_sql: str
    """What DuckDB reads it with."""


@contextmanager
def s3_thread(secret: str = "secret") -> Iterator[S3]:
    """A store in a thread of this process. All of moto in one process share their buckets, so what
    this one holds is dropped with it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3(
            f"{host}:{port}",
            _client(f"http://{host}:{port}", secret),
            _secret_sql(f"{host}:{port}", secret),
        )
    finally:
        reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=30).close()
        server.stop()


def _client(endpoint: str, secret: str) -> BaseClient:
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id="key", aws_secret_access_key=secret,
    )  # fmt: skip


def _secret_sql(authority: str, secret: str) -> str:
    return (
        f"CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET '{secret}', REGION 'us-east-1', "
        f"ENDPOINT '{authority}', URL_STYLE 'path', USE_SSL false)"
    )


@contextmanager
def s3_store() -> Iterator[ObjectStore]:
    host, port = "127.0.0.1", free_port()
    endpoint = f"http://{host}:{port}"
    # A process of its own: deltalake waits for answers without letting other threads run.
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield _made(host, port, endpoint)
    finally:
        server.terminate()
        server.wait(30)


def _made(host: str, port: int, endpoint: str) -> ObjectStore:
    """The store that is about to answer there, with its bucket."""
    _await(host, port)
    _client(endpoint, SECRET).create_bucket(Bucket="lakes")
    options = f"key_id=key secret={SECRET} region=us-east-1 endpoint={endpoint}"
    return ObjectStore(
        "s3://lakes", options,
        _secret_sql(f"{host}:{port}", SECRET),
        {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "allow_http": "true",
        },
        f"warehouse=s3://lakes/iceberg {options}",
        pafs.S3FileSystem(
            access_key="key", secret_key=SECRET, region="us-east-1",
            endpoint_override=endpoint,
        ),
        {
            "s3.endpoint": endpoint, "s3.access-key-id": "key",
            "s3.secret-access-key": SECRET, "s3.region": "us-east-1",
            "warehouse": "s3://lakes/iceberg",
        },
    )  # fmt: skip


def _await(host: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "moto did not come up"
            time.sleep(0.1)


@contextmanager
def azure_store(folder: Path) -> Iterator[ObjectStore]:
    with azurite(folder) as store:
        store.create("lakes")
        endpoint = f"http://127.0.0.1:{store.port}/{ACCOUNT}"
        authority = f"127.0.0.1:{store.port}"
        options = f"account={ACCOUNT} account_key={KEY} endpoint={endpoint}"
        warehouse = f"abfss://lakes@{ACCOUNT}.dfs.core.windows.net/iceberg"
        yield ObjectStore(
            "az://lakes", options,
            store.secret_sql,
            {
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY,
                "AZURE_STORAGE_ENDPOINT": endpoint, "allow_http": "true",
            },
            f"warehouse={warehouse} {options}",
            pafs.AzureFileSystem(
                ACCOUNT, account_key=KEY, blob_storage_authority=authority,
                blob_storage_scheme="http", dfs_storage_authority=authority,
                dfs_storage_scheme="http",
            ),
            {
                "adls.connection-string": "DefaultEndpointsProtocol=http;"
                f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}",
                "warehouse": warehouse,
            },
        )  # fmt: skip
