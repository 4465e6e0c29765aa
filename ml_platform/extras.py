"""Python packages that come with an extra, where one of them is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from ml_platform.errors import PlatformError

EXTRAS = {
    "deltalake": "delta", "pyiceberg": "iceberg", "pyiceberg_core": "iceberg",
    "adlfs": "iceberg-azure", "azure": "azure", "psycopg": "postgres", "pymysql": "mysql",
    "adbc_driver_manager": "adbc", "redis": "redis", "pyspark": "spark",
    "hvac": "vault",
    "evidently": "monitoring", "matplotlib": "monitoring",
    "grpc": "serve", "grpc_health": "serve", "grpc_reflection": "serve", "psutil": "serve",
    "prometheus_client": "serve", "starlette": "serve", "structlog": "serve",
    "uvicorn": "serve", "uvloop": "serve",
    "dagster": "dagster", "dagster_k8s": "kubernetes", "dagster_celery": "celery",
}  # fmt: skip
"""The extra that brings a package."""


class NotInstalled(PlatformError):
    """Something was asked for that needs a package of an extra."""


@contextmanager
def extra() -> Iterator[None]:
    """Around imports of packages that an extra brings; NotInstalled where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if _package(error) not in EXTRAS:
            raise
        raise NotInstalled(not_installed(error)) from None


def not_installed(error: ImportError) -> str:
    """What is missing, and how to get it.

    >>> not_installed(ModuleNotFoundError("No module named 'deltalake'", name="deltalake"))
    "deltalake is not installed: pip install 'ml-platform[delta]'"
    """
    name = _package(error)
    if not name:
        # What libraries themselves say of others that they need.
        return str(error)
    wanted = f"'ml-platform[{EXTRAS[name]}]'" if name in EXTRAS else name
    return f"{name} is not installed: pip install {wanted}"


def _package(error: ImportError) -> str:
    return (error.name or "").partition(".")[0]
