"""One GraphQL endpoint: a query goes out, its data or an error comes back."""

from collections.abc import Mapping
from typing import Any, Self

import httpx

from ml_platform.errors import OrchestratorError, OrchestratorUnavailable

# Loading a code location after its file changed, or starting a run, can take this long.
TIMEOUT_SECONDS = 60.0
CONNECT_SECONDS = 5.0


class Connection:
    """An open connection to Dagster's web server; safe to share between threads."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
        # A proxy meant for the world outside would be asked for 127.0.0.1, too.
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    def post(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The `data` of a query.

        Raises OrchestratorUnavailable where nothing answers, or what answers is not Dagster, and
        OrchestratorError with Dagster's words where it refuses the query.
        """
        body = {"query": query, "variables": dict(variables or {})}
        try:
            answer = self._client.post("/graphql", json=body)
        except httpx.TransportError as error:
            raise OrchestratorUnavailable(self.url, str(error) or type(error).__name__) from error
        try:
            said = answer.json()
        except ValueError:
            raise OrchestratorUnavailable(
                self.url, f"HTTP {answer.status_code}, and not from Dagster"
            ) from None
        if not isinstance(said, dict) or not ("data" in said or "errors" in said):
            raise OrchestratorUnavailable(
                self.url, f"HTTP {answer.status_code}, and not from Dagster"
            )
        if said.get("errors"):
            raise OrchestratorError(
                "; ".join(str(each.get("message", each)) for each in said["errors"])
            )
        data: dict[str, Any] = said["data"]
        return data

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
