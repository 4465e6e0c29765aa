"""What a deployment consists of, part by part: where each is kept, and which files belong to it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ml_platform.masking import masked
from ml_platform.registry.tracking import SQLITE
from ml_platform.settings import Settings
from ml_platform.storage.attaching import catalog_kind

DATA, DAGSTER, CATALOG, LAKE, MLFLOW, ARTIFACTS, LANDING = (
    "data", "dagster", "catalog", "lake", "mlflow", "artifacts", "landing",
)  # fmt: skip
MAGIC = b"SQLite format 3\x00"
BESIDE_A_DATABASE = ("-wal", "-shm", "-journal", ".lock", ".unfinished")
PASSING = ("spill", "benchmarks", "derived", "npm")
"""Folders of the data folder that hold nothing that lasts."""
SERVERS = ("dagster_postgres", "dagster_mysql")


@dataclass(frozen=True)
class Places:
    """Where the parts of a deployment are; those that a server keeps are not among them."""

    folders: Mapping[str, str]
    """Folder or URL, by part, in the order in which they are copied."""
    left_out: tuple[str, ...]
    """What servers keep, for people."""

    @classmethod
    def of(cls, settings: Settings) -> "Places":
        """Those of the settings and of DAGSTER_HOME.

        In this order what a part names is in one that is copied later, and so is there: the ends of
        the audit are copied before the audit, decisions before the versions that they name.
        """
        home = dagster_home()
        found = {DATA: str(settings.root)}
        left_out = []
        if home is not None and not home.is_relative_to(settings.root):
            found[DAGSTER] = str(home)
        if home is not None and is_on_a_server(home):
            left_out.append("what Dagster keeps of runs: the server that its dagster.yaml names")
        found[CATALOG] = masked(settings.catalog_uri, settings)
        found[LAKE] = settings.lake_files_uri.rstrip("/")
        if settings.tracking_uri.startswith(SQLITE):
            found[MLFLOW] = str(mlflow_database(settings).parent)
        else:
            address = masked(settings.tracking_uri, settings)
            left_out.append(f"runs and model versions: MLflow at {address}")
        if (artifacts := settings.artifacts_uri) is not None:
            found[ARTIFACTS] = _folder(artifacts)
        else:
            left_out.append("artifacts of model versions: MLflow's server")
        if settings.online_store:
            left_out.append("the online store: `ml-platform publish` fills it again from the lake")
        found[LANDING] = settings.landing_uri.rstrip("/")
        return cls(found, tuple(left_out))

    def names(self, settings: Settings) -> Iterator[tuple[str, Path]]:
        """Part and path of each file of the parts that are folders of this machine only."""
        for part in (DATA, DAGSTER):
            if part in self.folders:
                folder = Path(self.folders[part])
                yield from ((part, path) for path in self._below(folder, settings))

    def _below(self, folder: Path, settings: Settings) -> Iterator[Path]:
        """Files that last and that are of no other part, in order."""
        others = {
            Path(place) for part, place in self.folders.items()
            if part not in {DATA, DAGSTER, CATALOG} and "://" not in place
        }  # fmt: skip
        passing = {folder / name for name in PASSING}
        catalog = _catalog_file(settings)
        for current, folders, names in os.walk(folder):
            here = Path(current)
            folders[:] = sorted(name for name in folders if here / name not in others | passing)
            for name in sorted(names):
                path = here / name
                lasts = not name.endswith(BESIDE_A_DATABASE)
                if path.is_file() and lasts and path != catalog:
                    yield path


def mlflow_database(settings: Settings) -> Path:
    """The file of MLflow's embedded database."""
    return Path(settings.tracking_uri.removeprefix(SQLITE)).absolute()


def dagster_folder(settings: Settings) -> str:
    """Where Dagster keeps its runs: DAGSTER_HOME, or a folder of the data folder."""
    home = dagster_home()
    return str(home if home is not None else settings.root / "dagster")


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database, which somebody may be writing."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def dagster_home() -> Path | None:
    """DAGSTER_HOME, where there is such a folder."""
    home = os.environ.get("DAGSTER_HOME")
    return Path(home).absolute() if home and Path(home).is_dir() else None


def is_on_a_server(home: Path) -> bool:
    """Whether the instance of a DAGSTER_HOME keeps its runs on a server."""
    file = home / "dagster.yaml"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    return any(server in line for line in lines for server in SERVERS)


def _catalog_file(settings: Settings) -> Path | None:
    if catalog_kind(settings) != "sqlite":
        return None
    return Path(settings.catalog_uri.partition(":")[2])


def _folder(uri: str) -> str:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri.rstrip("/")
