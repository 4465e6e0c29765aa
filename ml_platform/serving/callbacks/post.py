"""One call of a receiver, signed as Standard Webhooks says, and what became of it."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from ml_platform.serving.callbacks.receivers import headers_of, is_permitted
from ml_platform.serving.callbacks.store import Callback
from ml_platform.settings import WEBHOOK_SECRET, ServingSettings

PATIENCE_SECONDS = 10.0
FAILED = {"failed", "ended"}
GONE = 410
SHOWN_CHARACTERS = 2000
"""Most characters of what went wrong in the answer to an activity, which a person reads."""


@dataclass(frozen=True)
class Posted:
    """What became of a call."""

    arrived: bool
    said: str
    is_final: bool = False
    """Whether there is no use in calling again."""


class Post:
    """Calls receivers; never follows where they point to."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._client = httpx.Client(timeout=PATIENCE_SECONDS, follow_redirects=False)

    def close(self) -> None:
        self._client.close()

    def __call__(self, callback: Callback, document: Mapping[str, Any], now: float) -> Posted:
        """Send a run, as a look at it shows it, to a receiver."""
        settings = self._settings
        registered = settings.callbacks.get(callback.receiver)
        if callback.url:
            if not is_permitted(callback.url, settings.callback_uris):
                return Posted(False, "the address is not permitted any more", is_final=True)
            url, secret = callback.url, settings.callback_secret
        elif registered is None:
            said = f"the setting names no receiver '{callback.receiver}' any more"
            return Posted(False, said, is_final=True)
        else:
            url, secret = registered.url, registered.secret
        body = body_of(document, of_activity=bool(callback.url))
        headers = {
            "content-type": "application/json",
            **(headers_of(callback.receiver, settings) if not callback.url else {}),
            **signature(callback.id, now, body, secret.get_secret_value() if secret else None),
        }
        return self._sent(url, body, headers)

    def _sent(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        try:
            with self._client.stream("POST", url, content=body, headers=headers) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:
            # Its text may hold the address, which opens something.
            return Posted(False, f"no answer ({type(error).__name__})")
        except (httpx.InvalidURL, ValueError):
            return Posted(False, "the address cannot be called", is_final=True)
        said = f"HTTP {status}"
        return Posted(200 <= status < 300, said, is_final=status == GONE)


def body_of(document: Mapping[str, Any], *, of_activity: bool) -> bytes:
    """What a receiver is sent: the run as a look shows it.

    of_activity: in the form that the Webhook activity of Azure Data Factory takes, which fails
    where the run did.
    """
    if not of_activity:
        return msgspec.json.encode({"type": "run.ended", **document})
    run = document["run"]
    if run["status"] not in FAILED:
        return msgspec.json.encode({"Output": document, "StatusCode": "200"})
    said = "; ".join(run.get("failures") or ()) or f"the run {run['status']}"
    error = {"ErrorCode": run["status"], "Message": said[:SHOWN_CHARACTERS]}
    return msgspec.json.encode({"Output": document, "Error": error, "StatusCode": "500"})


def signature(identity: str, now: float, body: bytes, secret: str | None) -> dict[str, str]:
    """Headers that say what is sent, when, and, with a secret, that the service sent it.

    HMAC-SHA256 over id, time and body, by the specification of Standard Webhooks, 1.0.
    """
    sent = {"webhook-id": identity, "webhook-timestamp": str(int(now))}
    if secret is None:
        return sent
    signed = f"{identity}.{int(now)}.".encode() + body
    mac = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return {**sent, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}


def key_of(secret: str) -> bytes:
    """The bytes of a secret: what follows `whsec_`, in base64; any other one as it is."""
    if not secret.startswith(WEBHOOK_SECRET):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(WEBHOOK_SECRET))
