"""Where things live: the only difference between a laptop and a cluster.

Every field can be set by an environment variable, `ML_PLATFORM_` and its name in capitals.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one deployment; the defaults need no server at all."""

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_", frozen=True, extra="forbid")

    use_cases: Path = Path("use_cases")
    """Folder whose subfolders are use cases."""
    data: Path = Path("data")
    """Folder of everything the embedded default writes."""
    catalog: str | None = None
    """DuckLake catalog: `sqlite:<file>` or `postgres:<connection>`; by default SQLite in `data`."""
    lake_files: str | None = None
    """Folder or URL (`s3://`, `az://`) of the lake's Parquet files; by default in `data`."""
    encrypted: bool = False
    """Encrypt data files, keys are in the catalog. Decided when the lake is first opened."""
    landing: str | None = None
    """Folder or URL below which `<use case>/<files>` land; by default in `data`."""
    extensions: Annotated[tuple[str, ...], NoDecode] = ()
    """More DuckDB extensions to load, comma separated: `httpfs`, `azure`."""
    secrets_sql: SecretStr | None = None
    """`CREATE SECRET` statements that DuckDB runs on opening, for object stores."""
    online_store: str | None = None
    """Where features are looked up online: `redis://…`; by default SQLite in `data`."""
    mlflow_tracking_uri: str | None = None
    """MLflow tracking server or database; by default SQLite in `data`."""
    mlflow_artifacts: str | None = None
    """Where new experiments keep artifacts; by default in `data`."""
    reports_url: str = "http://127.0.0.1:3001"
    """Where the report server that `make dev` starts is reached."""
    dagster_url: str = "http://127.0.0.1:3000"
    """Where Dagster's web server is reached."""
    alerts: SecretStr | None = None
    """Apprise addresses, comma separated, or the path of an Apprise configuration file."""
    automation: bool = False
    """Whether sensors, schedules and automation are on from the start, without clicks in the UI."""
    max_partitions_per_run: Annotated[int, Field(ge=1)] | None = None
    """Longest stretch of partitions one Dagster run takes; no limit by default."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Threads of model fitting; part of what makes a training run repeatable to the bit."""
    commit_retries: Annotated[int, Field(ge=0)] = 30
    """How often a lake transaction that lost against another writer is tried again."""

    @field_validator("extensions", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @cached_property
    def root(self) -> Path:
        """The data folder, absolute."""
        return self.data.resolve()

    @property
    def catalog_uri(self) -> str:
        return self.catalog or f"sqlite:{self.root / 'lake' / 'catalog.sqlite'}"

    @property
    def lake_files_uri(self) -> str:
        return self.lake_files or f"{self.root / 'lake' / 'files'}/"

    @property
    def landing_uri(self) -> str:
        return self.landing or str(self.root / "landing")

    @property
    def online_folder(self) -> Path:
        """Where the embedded online store keeps its files."""
        return self.root / "online"

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def artifacts_uri(self) -> str | None:
        """Artifact root of new experiments; None leaves it to the tracking server."""
        if self.mlflow_artifacts or self.mlflow_tracking_uri:
            return self.mlflow_artifacts
        return (self.root / "mlflow" / "artifacts").as_uri()

    @property
    def reports(self) -> Path:
        return self.root / "reports"


class ServingSettings(BaseSettings):
    """Settings of the prediction service, `ML_PLATFORM_SERVING_` and the name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="ML_PLATFORM_SERVING_", frozen=True, extra="forbid"
    )

    host: str = "127.0.0.1"
    """Address that HTTP and gRPC listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """HTTP port."""
    grpc_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """gRPC port."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Processes that answer; each one keeps every model that serves."""
    most_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    """Largest body of a request, unpacked."""
    most_rows: Annotated[int, Field(ge=1)] = 10_000
    """Rows of one request."""
    batch_rows: Annotated[int, Field(ge=1)] = 512
    """Rows that are predicted together."""
    waiting_rows: Annotated[int, Field(ge=1)] = 20_000
    """Rows that may wait in one worker before requests are turned away."""
    body_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a body may take to arrive."""
    follow_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often the promotion history is looked at."""
    log_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    """Size from which on a file of logged requests lands."""
    log_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Age from which on a file of logged requests lands, whatever its size."""
    log_secret: SecretStr | None = None
    """Key of the hashes that stand for personal columns; the same on every worker, for good."""
