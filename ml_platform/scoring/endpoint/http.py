"""Requests over HTTP, and what an answer's status means."""

import email.utils
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec

from ml_platform.errors import EndpointRefused
from ml_platform.failures import RETRIED_STATUS
from ml_platform.scoring.endpoint.answers import SHOWN, TryAgain
from ml_platform.scoring.endpoint.tls import UNTRUSTED

CONNECT_SECONDS = 5.0
SAID = ("detail", "message", "error")
"""Keys under which servers say what is wrong: problem documents, MLflow, the Open Inference
Protocol."""


class Sender:
    """Connections to one server; safe to share between threads."""

    def __init__(
        self,
        headers: Mapping[str, str],
        timeout_seconds: float,
        connections: int,
        trust: ssl.SSLContext,
    ) -> None:
        self._client = httpx.Client(
            verify=trust,
            headers={**headers, "content-type": "application/json"},
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=connections),
            # A proxy meant for the world outside would be asked for 127.0.0.1, too.
            trust_env=False,
        )

    def post(self, url: str, body: bytes) -> httpx.Response:
        """An answer of status 200.

        Raises TryAgain where there is none, or its status says that another try may get one;
        EndpointRefused for any other status.
        """
        try:
            answer = self._client.post(url, content=body)
        except httpx.TransportError as error:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            # Which does not change while somebody waits for it.
            if UNTRUSTED in said:
                raise EndpointRefused(said) from error
            raise TryAgain(said) from error
        if answer.status_code == httpx.codes.OK:
            return answer
        said = f"HTTP {answer.status_code}: {_said(answer)}".rstrip(": ")
        if answer.status_code in RETRIED_STATUS:
            raise TryAgain(said, retry_after(answer.headers.get("retry-after"), datetime.now(UTC)))
        raise EndpointRefused(said)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait: a number of them, or a date.

    >>> retry_after("7", datetime(2024, 1, 1, tzinfo=UTC))
    7.0
    >>> retry_after("Mon, 01 Jan 2024 00:00:30 GMT", datetime(2024, 1, 1, tzinfo=UTC))
    30.0
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - now).total_seconds())


def document(answer: httpx.Response) -> dict[str, Any]:
    """The object that an answer holds; EndpointRefused where it holds none."""
    try:
        found = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict):
        raise EndpointRefused(f"the answer is no JSON object: {answer.text[:60]!r}")
    return found


def _said(answer: httpx.Response) -> str:
    try:
        found = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        found = answer.text
    if isinstance(found, dict):
        found = next((found[key] for key in SAID if found.get(key)), "")
    return " ".join(str(found).split())[:SHOWN]
