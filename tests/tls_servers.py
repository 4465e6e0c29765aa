"""Servers of others that speak TLS alone: PostgreSQL, MariaDB, Redis, S3 and MLflow."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pymysql
import pytest
import trustme

from tests.dagster_servers import free_port, stop
from tests.service_processes import wait_for

PASSWORD = "hush-hush-7c1e"
HOST = "127.0.0.1"
"""What certificates are issued for; `localhost` is another name for the same server."""


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, the certificate that it signed for HOST, and a stranger's."""

    authority: Path
    stranger: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Make all of them in a folder."""
    made = Certificates(*(folder / name for name in ("ca.pem", "other.pem", "cert.pem", "key.pem")))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.authority)
    trustme.CA().cert_pem.write_to_path(made.stranger)
    issued = authority.issue_cert(HOST)
    made.certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(made.key)
    return made


@contextmanager
def _running(
    command: Sequence[Any], log: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, **options
        )
        try:
            yield server
        finally:
            stop(server)


def _await(server: subprocess.Popen[bytes], connect: Any, log: Path) -> None:
    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            connect()
        except Exception:
            return False
        return True

    wait_for(answers, "the server takes connections")


@contextmanager
def tls_postgres(files: Certificates) -> Iterator[int]:
    """A PostgreSQL of the system, since the one from PyPI has no TLS; the port. Its user is ada."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")
    # It does not run as root, and has to own its key. In /tmp: a socket's path has to be short.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options: dict[str, Any] = {"cwd": "/"}
        for source, target in ((files.certificate, "cert.pem"), (files.key, "key.pem")):
            shutil.copy(source, folder / target)
            (folder / target).chmod(0o600)
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            options["user"] = "postgres"
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres")
        subprocess.run(
            [found[-1] / "initdb", "-D", folder / "data", "-U", "ada", "-A", "scram-sha-256",
             "--pwfile", folder / "password"],
            check=True, capture_output=True, **options,
        )  # fmt: skip
        (folder / "data" / "pg_hba.conf").write_text(f"hostssl all all {HOST}/32 scram-sha-256\n")
        port, log = free_port(), files.key.parent / "postgres.log"
        command = [found[-1] / "postgres", "-D", folder / "data", "-p", port, "-k", folder]
        for setting in (f"listen_addresses={HOST}", "ssl=on", f"ssl_cert_file={folder}/cert.pem",
                        f"ssl_key_file={folder}/key.pem"):  # fmt: skip
            command += ["-c", setting]
        address = f"host={HOST} port={port} user=ada password={PASSWORD} dbname=postgres"
        with _running(command, log, **options) as server:
            _await(server, lambda: psycopg.connect(address).close(), log)
            yield port


@contextmanager
def tls_mariadb(files: Certificates) -> Iterator[int]:
    """A MariaDB whose user ada may do all in the database `app`; the port."""
    programs = [shutil.which(name) for name in ("mariadb-install-db", "mariadbd")]
    if None in programs:
        pytest.skip("mariadbd is not installed; apt-get install mariadb-server")
    with tempfile.TemporaryDirectory() as name:
        data, port, log = f"--datadir={name}/data", free_port(), files.key.parent / "mariadb.log"
        subprocess.run(
            [programs[0], "--no-defaults", data, "--auth-root-authentication-method=normal",
             "--skip-test-db", "--user=root"],
            check=True, capture_output=True,
        )  # fmt: skip
        command = [
            programs[1], "--no-defaults", "--user=root", data, f"--socket={name}/s.sock",
            f"--port={port}", f"--bind-address={HOST}", f"--pid-file={name}/pid",
            "--skip-log-bin", f"--ssl-cert={files.certificate}", f"--ssl-key={files.key}",
            "--require-secure-transport=ON",
        ]  # fmt: skip

        def connect() -> Any:
            return pymysql.connect(
                host=HOST, port=port, user="root", ssl_ca=str(files.authority), autocommit=True
            )

        with _running(command, log) as server:
            _await(server, lambda: connect().close(), log)
            with connect() as connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE app")
                cursor.execute(f"CREATE USER ada@'%' IDENTIFIED BY '{PASSWORD}'")
                cursor.execute("GRANT ALL ON app.* TO ada@'%'")
                cursor.execute("CREATE TABLE app.rides AS SELECT 7 AS ride")
            yield port


@contextmanager
def tls_redis(files: Certificates) -> Iterator[int]:
    """A Redis with a password; the port."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    port, log = free_port(), files.key.parent / "redis.log"
    command = [
        "redis-server", "--port", 0, "--tls-port", port, "--bind", HOST, "--save", "",
        "--tls-cert-file", files.certificate, "--tls-key-file", files.key,
        "--tls-ca-cert-file", files.authority, "--tls-auth-clients", "no",
        "--requirepass", PASSWORD,
    ]  # fmt: skip
    with _running(command, log) as server:
        _await(server, lambda: _spoken(port, files), log)
        yield port


def _spoken(port: int, files: Certificates) -> None:
    import socket
    import ssl

    context = ssl.create_default_context(cafile=str(files.authority))
    with (
        socket.create_connection((HOST, port)) as plain,
        context.wrap_socket(plain, server_hostname=HOST),
    ):
        pass


@contextmanager
def tls_s3(files: Certificates) -> Iterator[int]:
    """An S3 by moto with a bucket `lake`; the port."""
    port, log = free_port(), files.key.parent / "s3.log"
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", port, "-s",
               "-c", files.certificate, "-k", files.key]  # fmt: skip
    with _running(command, log) as server:
        _await(server, lambda: _spoken(port, files), log)
        boto3.client(
            "s3", endpoint_url=f"https://{HOST}:{port}", region_name="us-east-1",
            aws_access_key_id="key-id", aws_secret_access_key=PASSWORD,
            verify=str(files.authority),
        ).create_bucket(Bucket="lake")  # fmt: skip
        yield port


@contextmanager
def tls_mlflow(files: Certificates) -> Iterator[int]:
    """MLflow's own server on SQLite; the port."""
    port, log = free_port(), files.key.parent / "mlflow.log"
    folder = files.key.parent
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", port,
        "--workers", 1, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", folder / "artifacts", "--uvicorn-opts",
        f"--ssl-certfile {files.certificate} --ssl-keyfile {files.key}",
    ]  # fmt: skip
    # Its queue of jobs, seven more processes, would outlive it.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _running(command, log, env=environment) as server:
        _await(server, lambda: _spoken(port, files), log)
        yield port
