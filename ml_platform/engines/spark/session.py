"""A session of Spark, as the settings say where."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ml_platform.errors import EngineFailed
from ml_platform.extras import not_installed
from ml_platform.masking import masked
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOGGING = Path(__file__).with_name("log4j2.properties").as_uri()
NEEDED = {
    # What overflows fails, as in DuckDB, instead of becoming another number.
    "spark.sql.ansi.enabled": "true",
    # Times of Parquet as DuckLake keeps them.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.inferTimestampNTZ.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
"""Settings of a session without which rows would be others."""
DEFAULTS = {
    "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOGGING}",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
CONNECT_PORT = 15002
"""Where Spark Connect listens by default."""
ANSWERS_SECONDS = 10.0
RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Refused|Outdated|Differs)\b")
"""How the last line of a traceback begins."""
ARCHIVED = "environment"
"""Folder that the packed Python environment is unpacked to beside an executor."""


@contextmanager
def spark_session(settings: Settings, timezone: str) -> Iterator["SparkSession"]:
    """A session that counts in a time zone; one of this process's own ends with it.

    Raises EngineFailed where pyspark is not installed or no session can be opened.
    """
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError as error:
        raise EngineFailed(f"engine spark: {not_installed(error)}") from None
    # The exception says the same.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    earlier = SparkSession.getActiveSession()
    try:
        session = _opened(settings, SparkSession.builder)
        for name, value in {**NEEDED, "spark.sql.session.timeZone": timezone}.items():
            session.conf.set(name, value)
    except Exception as error:
        # Py4J, gRPC and pyspark each have errors of their own.
        raise EngineFailed(failure(settings, f"no session at {_where(settings)}", error)) from error
    try:
        yield session
    finally:
        if earlier is None:
            session.stop()


def _opened(settings: Settings, builder: "SparkSession.Builder") -> "SparkSession":
    if settings.spark_remote is not None:
        address = settings.spark_remote.get_secret_value()
        _require_server(address)
        session = builder.remote(address).getOrCreate()
        if settings.spark_archive is not None:
            session.addArtifact(f"{settings.spark_archive}#{ARCHIVED}", archive=True)
            session.conf.set("spark.sql.execution.pyspark.python", f"{ARCHIVED}/bin/python")
        return session
    builder = builder.master(settings.spark_master).appName("ml-platform")
    python = sys.executable
    if settings.spark_archive is not None:
        builder = builder.config("spark.archives", f"{settings.spark_archive}#{ARCHIVED}")
        python = f"./{ARCHIVED}/bin/python"
    # Read from the environment alone; by default it would be whichever Python comes first there.
    os.environ["PYSPARK_PYTHON"], os.environ["PYSPARK_DRIVER_PYTHON"] = python, sys.executable
    alone = LOOPBACK if settings.spark_master.startswith("local") else {}
    for name, value in {**DEFAULTS, **alone, **settings.spark_conf}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _require_server(address: str) -> None:
    """Raise OSError where nothing listens there; the client would try for ten minutes."""
    parts = urlsplit(address)
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or CONNECT_PORT), ANSWERS_SECONDS
        ).close()
    except OSError as error:
        raise OSError(f"{parts.hostname}:{parts.port or CONNECT_PORT}: {error}") from None


def _where(settings: Settings) -> str:
    # The address of Spark Connect may hold a token.
    return "the setting spark_remote" if settings.spark_remote else settings.spark_master


def failure(settings: Settings, what: str, error: Exception) -> str:
    """What failed and why, in one line and without passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Traceback (most recent call last):" in str(error):
        # Of an error in a worker's Python the line that says what it is.
        raised = [line for line in lines if RAISED.match(line)]
        lines = raised[-1:] or lines
    said = lines[0] if lines else type(error).__name__
    return masked(f"engine spark: {what}: {said}", settings)
