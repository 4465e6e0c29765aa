"""Which snapshots of the lake model versions were trained at."""

from pathlib import Path

from ml_platform.registry.tracking import SQLITE, answering, open_client
from ml_platform.settings import Settings
from ml_platform.storage.patience import Patience

TAG = "snapshot"


def trained_snapshots(settings: Settings) -> dict[str, frozenset[int]]:
    """The snapshots that versions were trained at, by registered model, declared or not.

    Those of versions that were deleted in MLflow do not count. Raises RegistryUnavailable.
    """
    uri = settings.tracking_uri
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return {}

    def attempt() -> dict[str, frozenset[int]]:
        with answering(settings):
            return _read(settings)

    return Patience(settings.server_wait_seconds)(attempt)


def _read(settings: Settings) -> dict[str, frozenset[int]]:
    client = open_client(settings)
    found: dict[str, set[int]] = {}
    token: str | None = None
    while token != "":
        page = client.search_model_versions(page_token=token)
        for entry in page:
            if (snapshot := entry.tags.get(TAG, "")).isdigit():
                found.setdefault(entry.name, set()).add(int(snapshot))
        token = page.token or ""
    return {name: frozenset(snapshots) for name, snapshots in found.items()}
