"""What a use case declares of batches that an endpoint predicts."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ml_platform.spec.declared import Declared, Names, Text

SCHEMES = {"mlflow": ("http", "https"), "oip": ("http", "https", "grpc", "grpcs")}
Protocol = Literal["oip", "mlflow"]


def endpoint_url(value: str) -> str:
    """An address without a password.

    >>> endpoint_url("http://models:8080/")
    'http://models:8080'
    """
    parts = urlsplit(value)
    if not parts.scheme or not parts.hostname:
        raise ValueError("should be an address, such as http://models:8080")
    if parts.scheme not in SCHEMES["oip"]:
        known = ", ".join(SCHEMES["oip"])
        raise ValueError(f"begins with '{parts.scheme}', which is none of {known}")
    if parts.username or parts.password or parts.query or parts.fragment:
        # This file is committed, and kept with each model version.
        raise ValueError(
            "should have no user, password or query; headers such as Authorization are the "
            "setting ML_PLATFORM_ENDPOINTS"
        )
    return value.rstrip("/")


class Scorer(Declared):
    """Where batches are predicted, instead of in the process that scores."""

    url: Annotated[Text, AfterValidator(endpoint_url)]
    """Address of the server; over gRPC `grpc://host:port`, with TLS `grpcs://host:port`."""
    protocol: Protocol = "oip"
    """The Open Inference Protocol, version 2, or MLflow's `/invocations`."""
    model: Text | None = None
    """Name of the model at the server, by default that of the use case."""
    output: Text | None = None
    """Name of the output that is the prediction, where the server does not call it as we do."""
    versions: Literal["champion", "answered"] = "champion"
    """Whether a window is predicted by its champion alone, or by whichever version answers."""
    version: Annotated[int, Field(ge=1)] | None = None
    """The version that answers, where answers do not say it."""
    check: Literal["sample", "all", "none"] = "sample"
    """How many answers are compared with the registered version's predictions in process."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest relative difference of an answer from that prediction; 0 compares to the bit."""
    classes: Names = ()
    """Names of the classes, in the order of the answers, of a model that is not registered."""
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Most rows of one request."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    """Most requests that wait for an answer at one time."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the time that requests are under way; less leaves the server to its other callers.
    """
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long one answer may take."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Scorer":
        scheme = urlsplit(self.url).scheme
        if scheme not in SCHEMES[self.protocol]:
            raise ValueError(f"protocol '{self.protocol}' does not speak {scheme}")
        return self
