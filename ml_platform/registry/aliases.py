"""MLflow's aliases, read without MLflow's client, which takes seconds to import.

So that every command can afford to compare them with the promotion history.
"""

import os
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ml_platform.errors import RegistryError, RegistryUnavailable
from ml_platform.failures import is_refused
from ml_platform.settings import Settings

SQLITE = "sqlite:///"
HTTP = ("http://", "https://")
TIMEOUT_SECONDS = 5.0
BUSY_SECONDS = 5.0
PATH = "/api/2.0/mlflow/registered-models/alias"


def read_alias(settings: Settings, model: str, alias: str) -> int | None:
    """The version that an alias of a registered model points to; None where it points to none.

    Raises RegistryUnavailable where the registry cannot be asked.
    """
    uri = settings.tracking_uri
    if uri.startswith(SQLITE):
        return _in_sqlite(Path(uri.removeprefix(SQLITE)), model, alias)
    if uri.startswith(HTTP):
        return _over_http(uri, model, alias)
    return _by_client(settings, model, alias)


def _in_sqlite(database: Path, model: str, alias: str) -> int | None:
    if not database.is_file():
        return None
    uri = f"file:{quote(str(database))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            row = connection.execute(
                "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?",
                (model, alias),
            ).fetchone()
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such table"):
            # Whoever was to make the tables has been killed; the next one that writes makes them.
            return None
        raise RegistryUnavailable(
            f"MLflow's database {database} cannot be read: {error}"
        ) from error
    return None if row is None else int(row[0])


def _over_http(uri: str, model: str, alias: str) -> int | None:
    import httpx

    address = uri.rpartition("@")[2]
    try:
        answer = httpx.get(
            uri.rstrip("/") + PATH,
            params={"name": model, "alias": alias},
            timeout=TIMEOUT_SECONDS,
            verify=_trusted(),
            **_credentials(),
        )
    except httpx.TransportError as error:
        if is_refused(error):
            raise RegistryError(f"MLflow at {address}: {error}") from None
        raise RegistryUnavailable(f"MLflow does not answer at {address}: {error}") from None
    if answer.status_code in {400, 404}:
        # How MLflow says that there is no such alias, or no such model.
        return None
    if answer.is_error:
        raise RegistryUnavailable(f"MLflow at {address} answers with HTTP {answer.status_code}")
    return int(answer.json()["model_version"]["version"])


def _trusted() -> ssl.SSLContext:
    """What MLflow's own client takes from the environment: whom to trust, and what to show."""
    import httpx

    if authorities := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        context = ssl.create_default_context(cafile=authorities)
    else:
        is_checked = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS") != "true"
        context = httpx.create_ssl_context(verify=is_checked)
    if certificate := os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        context.load_cert_chain(certificate)
    return context


def _credentials() -> dict[str, Any]:
    """What MLflow's own client takes from the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"Authorization": f"Bearer {token}"}}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return {"auth": (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    return {}


def _by_client(settings: Settings, model: str, alias: str) -> int | None:
    from mlflow.exceptions import MlflowException

    from ml_platform.registry.tracking import open_client

    try:
        return int(open_client(settings).get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        return None
