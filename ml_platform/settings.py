"""Where things live: the only difference between a laptop and a cluster.

Every field can be set by an environment variable, `ML_PLATFORM_` and its name in capitals. Its
value may refer to secrets that are kept elsewhere, `${file:/run/secrets/lake}`.
"""

import base64
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ml_platform.secret_references import SettingsVariables


def _signing_secret(value: SecretStr) -> SecretStr:
    """A key that signatures can be made with; ValueError."""
    secret = value.get_secret_value()
    if secret.startswith(WEBHOOK_SECRET):
        try:
            base64.b64decode(secret.removeprefix(WEBHOOK_SECRET), validate=True)
        except ValueError:
            raise ValueError(f"what follows {WEBHOOK_SECRET} is not valid base64") from None
    return value


WEBHOOK_SECRET = "whsec_"
"""Begins a secret that is bytes in base64, as Standard Webhooks has it."""
SigningSecret = Annotated[SecretStr, Field(min_length=16), AfterValidator(_signing_secret)]
CallbackPrefix = Annotated[
    str, Field(pattern=r"^https?://(\*\.)?[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?/[^\s?#\\]*$")
]
"""Scheme, host, perhaps with `*.` for what is below it, and the beginning of a path."""


Kept = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}(d|w|mo)$")]
"""A length of time in days, weeks or months."""


class Endpoint(BaseModel):
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


class VariableSettings(BaseSettings):
    """Settings from the environment alone, with the secrets that they refer to."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, SettingsVariables(settings_cls)


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
    endpoints: Mapping[str, Endpoint] = {}
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


class CallbackReceiver(BaseModel):
    """Who is notified when a run of a pipeline has ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")]
    """Where it is called, by POST."""
    secret: SigningSecret
    """Key of the signature; after `whsec_`, in base64."""
    headers: Mapping[str, SecretStr] = {}
    """Sent with each call: `{"Authorization": "Bearer …"}`."""


class ServingSettings(VariableSettings):
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
    drain_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long the service still answers after SIGTERM, and says that it is not ready: longer than
    it takes whoever sends requests to see that."""
    silent_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A worker that has given no sign of life for so long is killed, and another one started."""
    most_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    """Largest body of a request, unpacked."""
    most_rows: Annotated[int, Field(ge=1)] = 10_000
    """Rows of one request."""
    batches: Path | None = None
    """Folder that callers share: files of rows to predict, and of answers. None are taken without.
    """
    batch_tables: Annotated[tuple[str, ...], NoDecode] = ()
    """Tables of `databases` that callers may name for rows and answers, as database:table with *
    for any letters, comma separated: `shop:batch_*`; none by default."""
    callbacks: Mapping[str, CallbackReceiver] = {}
    """Receivers that can be notified when a run of a pipeline has ended, by name. In the
    environment as JSON: `{"orchestrator": {"url": "https://…", "secret": "…"}}`."""
    callback_uris: Annotated[tuple[CallbackPrefix, ...], NoDecode] = ()
    """Kinds of addresses that a request may name as `callBackUri`, comma separated: scheme, host
    and the beginning of the path, `https://*.datafactory.azure.com/`; none by default."""
    callback_secret: SigningSecret | None = None
    """Key of the signature of calls to such addresses; without it they are not signed."""
    callback_hours: Annotated[float, Field(gt=0)] = 24.0
    """How long after the end of a run a receiver that does not take it is called again."""
    batch_rows: Annotated[int, Field(ge=1)] = 512
    """Rows that are predicted together."""
    waiting_rows: Annotated[int, Field(ge=1)] = 20_000
    """Rows that may wait in one worker before requests are rejected."""
    body_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a body may take to arrive."""
    follow_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How often the promotion history is looked at."""
    retry_seconds: Annotated[float, Field(gt=0)] = 300.0
    """After so long a version that failed to load is tried again, decided about or not."""
    log_requests: Literal["errors", "all"] = "errors"
    """Which requests are a line of the log: those that the service failed at, or all of them."""
    otlp_endpoint: str | None = None
    """Where traces go, by OTLP over HTTP: `http://collector:4318`; nothing is traced without."""
    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the requests that are traced, where the caller's trace does not decide it."""
    canary_seconds: Annotated[float, Field(gt=0)] = 1.0
    """How long a canary may take before the champion answers in its place."""
    canary_failures: Annotated[int, Field(ge=1)] = 5
    """Failures of a canary in one worker, among its last 200 requests, that end it."""
    canary_slower: Annotated[float, Field(gt=1)] = 3.0
    """A canary is ended whose p95 is so many times that of the champion."""
    shadow_rows: Annotated[int, Field(ge=1)] = 512
    """Rows that may wait for a shadow in one worker; more are left out, and counted."""
    authentication: bool = False
    """Whether callers have to say who they are; off is taken only where `host` is loopback."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Without authentication: names that requests may call the service by, besides those of this
    machine; comma separated."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Without authentication: origins of pages that may ask the service, besides its own; comma
    separated: `http://localhost:3000`."""
    oidc_issuer: str | None = None
    """Issuer of tokens that are taken besides keys, as it stands in them."""
    oidc_audience: str | None = None
    """Audience that tokens have to be for."""
    oidc_keys: str | None = None
    """JWKS of the issuer: an `https://` URL, or a file."""
    oidc_claim: str = "roles"
    """Claim of a token that lists what its holder may do; dots lead into nested claims."""
    oidc_grants: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Grants `role@use_case` by value of that claim; the values are grants themselves if empty."""
    oidc_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = 30.0
    """How far the clocks of issuer and service may differ."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """Requests that one caller may send to one worker in the long run; no limit by default."""
    burst: Annotated[int, Field(ge=1)] = 100
    """Requests that a caller may send at once after a pause."""
    failures_per_second: Annotated[float, Field(gt=0)] = 1.0
    """Requests without a key or token that works that one address may send to one worker in the
    long run and be given the reason; beyond it they are asked to wait."""
    failures_burst: Annotated[int, Field(ge=1)] = 100
    """The same, at once after a pause."""
    longest_wait_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Requests that would wait longer than this for their prediction are rejected at once."""
    head_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long the head of a request may take to arrive."""
    most_connections: Annotated[int, Field(ge=1)] = 512
    """Connections that one worker holds over HTTP, and as many over gRPC; also its gRPC calls."""
    tls_cert: Path | None = None
    """Certificate chain in PEM; with `tls_key`, HTTP and gRPC speak TLS only."""
    tls_key: Path | None = None
    """Private key of the certificate, in PEM."""
    tls_client_ca: Path | None = None
    """Authorities in PEM one of which has to have signed the certificate of every client."""
    log_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    """Size from which on a file of logged requests lands."""
    log_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Age from which on a file of logged requests lands, whatever its size."""
    log_secret: SecretStr | None = None
    """Key of the hashes that stand for personal columns; the same on every worker, for good."""

    @field_validator(
        "callback_uris", "batch_tables", "allowed_hosts", "allowed_origins", mode="before"
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value
