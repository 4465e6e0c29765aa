"""Settings of the prediction service."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ml_platform.settings.variables import VariableSettings


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
