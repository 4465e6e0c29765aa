"""Settings of one deployment, whatever of it runs."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ml_platform.settings.variables import VariableSettings

Kept = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}(d|w|mo)$")]
"""A length of time in days, weeks or months."""


class EndpointSettings(BaseModel):
    """What this deployment knows of an endpoint that predicts batches of a use case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    """Its address here, instead of the one that the use case declares."""
    headers: Mapping[str, SecretStr] = {}
    """Sent with each request: `{"Authorization": "Bearer …"}`; over gRPC as metadata."""
    ca: Path | None = None
    """PEM file of the authorities that its certificate is trusted by, instead of this machine's."""
    certificate: Path | None = None
    """PEM file of the certificate that it is shown, with the chain, where it asks for one."""
    key: Path | None = None
    """PEM file of that certificate's key; by default in the same file."""


class Settings(VariableSettings):
    """Settings of one deployment; the defaults need no server at all."""

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_", frozen=True, extra="forbid")

    use_cases: Path = Path("use_cases")
    """Folder whose subfolders are use cases."""
    data: Path = Path("data")
    """Folder of everything the embedded default writes."""
    environments: Path = Path(".venvs")
    """Folder of the Python environments of use cases that have one of their own."""
    catalog: str | None = None
    """DuckLake catalog: `sqlite:<file>` or `postgres:<connection>`; by default SQLite in `data`."""
    lake_files: str | None = None
    """Folder or URL (`s3://`, `az://`) of the lake's Parquet files; by default in `data`."""
    encrypted: bool = False
    """Encrypt data files, keys are in the catalog. Decided when the lake is first opened."""
    landing: str | None = None
    """Folder or URL below which `<use case>/<files>` land; by default in `data`."""
    databases: Mapping[str, SecretStr] = {}
    """Databases and lakes that sources may have tables in, and that is published to, by name:
    `sqlite:<file>`, `postgres:<connection>`, `mysql:<connection>`, `adbc:driver=<driver> …`;
    `parquet:<folder>`, `delta:<folder>`, `iceberg:<catalog>`.
    In the environment as JSON: `{"erp": "postgres:host=…"}`."""
    endpoints: Mapping[str, EndpointSettings] = {}
    """Addresses and headers of endpoints that predict batches, by use case. In the environment as
    JSON: `{"trips": {"url": "https://…", "headers": {"Authorization": "Bearer …"}}}`."""
    landing_settle_seconds: Annotated[float, Field(ge=0)] = 5
    """How long a landing file has to be quiet before the sensor takes it."""
    landing_patience_seconds: Annotated[float, Field(ge=0)] = 600
    """How long the sensor waits for the end of a file; then it is taken as it is, or refused."""
    landing_log_seconds: Annotated[float, Field(ge=0)] = 3600
    """How long files that the service writes wait for more of them, while they are little beside
    what their partition was ingested from."""
    extensions: Annotated[tuple[str, ...], NoDecode] = ()
    """More DuckDB extensions to load, comma separated: `httpfs`, `azure`."""
    secrets_sql: SecretStr | None = None
    """`CREATE SECRET` statements that DuckDB runs on opening, for object stores."""
    object_store_ca: Path | None = None
    """PEM file of the authorities that certificates of object stores and `https://` are trusted by,
    instead of this machine's."""
    online_store: str | None = None
    """Where features are looked up online: `redis://…`; by default SQLite in `data`."""
    mlflow_tracking_uri: str | None = None
    """MLflow tracking server or database; by default SQLite in `data`."""
    mlflow_artifacts: str | None = None
    """Where new experiments keep artifacts; by default in `data`."""
    pages_url: str = "http://127.0.0.1:3001"
    """Where the pages that `make dev` serves are reached."""
    dagster_url: str = "http://127.0.0.1:3000"
    """Where Dagster's web server is reached."""
    alerts: SecretStr | None = None
    """Apprise addresses, comma separated, or the path of an Apprise configuration file."""
    executor: Literal["processes", "kubernetes", "celery"] = "processes"
    """What runs the steps of Dagster's runs: processes beside it, pods, workers of Celery."""
    kubernetes_steps: Mapping[str, Mapping[str, Any]] = {}
    """Dagster's `dagster-k8s/config` of pods of steps, by `<use case>/<engine>`, case or engine."""
    celery_broker: SecretStr | None = None
    """Redis that workers of Celery take steps from: `redis://redis:6379/1`."""
    automation: bool = False
    """Whether sensors, schedules and automation are on from the start, without clicks in the UI."""
    code_commit: str | None = None
    """Commit of the code, where the folder of use cases is in no git repository: in an image."""
    kept_version: bool = False
    """Whether this code location is there for its commit alone: it runs what is asked of that
    version at a URL, and has no sensors and no schedules."""
    max_partitions_per_run: Annotated[int, Field(ge=1)] | None = None
    """Longest range of partitions one Dagster run takes; no limit by default."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Threads of model fitting; part of what makes a training run repeatable to the bit."""
    duckdb_threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of DuckDB in a process; by default as many as there are cores."""
    duckdb_memory: str | None = None
    """Memory of DuckDB in a process, `4GB`, beyond which it writes to disk; by default 80% of the
    machine's."""
    spark_master: str = "local[*]"
    """Where engine spark runs: `local[*]`, `spark://host:7077`, `yarn`, `k8s://https://…`."""
    spark_remote: SecretStr | None = None
    """A server of Spark Connect instead, `sc://host:15002`; it may hold a token."""
    spark_conf: Mapping[str, str] = {}
    """More of Spark's own settings, as JSON: `{"spark.executor.memory": "8g"}`."""
    spark_archive: str | None = None
    """The packed Python environment that executors are given, as `ml-platform pack` makes it; a
    path or URL. By default they have that of this process at the same path."""
    server_wait_seconds: Annotated[float, Field(ge=0)] = 120
    """How long commands and runs wait for a server that does not answer: the lake's PostgreSQL, an
    object store, Redis; 0 fails at once."""
    backups: str | None = None
    """Folder or URL to which Dagster's job `backup` copies everything each night; there is no such
    job by default."""
    backups_kept: Annotated[int, Field(ge=1)] | None = None
    """How many of the newest backups in a folder that job leaves; all by default."""
    commit_retries: Annotated[int, Field(ge=0)] = 30
    """How often a lake transaction that lost against another writer is tried again."""
    keep_snapshots: Kept | None = None
    """How long snapshots of the lake are kept that nothing names: `30d`, `8w`, `6mo`; by default
    for good. Longer than any command or training takes."""
    keep_mlflow_runs: Kept | None = None
    """How long after their end runs in MLflow are kept that no model version names; by default for
    good."""
    keep_failed_runs: Kept | None = None
    """How long Dagster's runs are kept that ended without success and materialised nothing, with
    their events; by default for good."""

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

    @property
    def derived(self) -> Path:
        """Where is kept what was derived from use cases; what goes is derived again."""
        return self.root / "derived"
