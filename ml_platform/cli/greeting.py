"""What servers print once they answer: where to look, and what to type next."""

import json
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import httpx

from ml_platform.cli.interrupts import program
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import utc

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 60.0
"""Examples of many use cases take a while to write."""


def of_dagster(url: str) -> str:
    """What is said once Dagster answers."""
    return (
        f"ready; lineage: {url}/asset-groups, runs: {url}/runs. In another terminal: "
        f"{program()} status"
    )


def greet_when_up(serving: ServingSettings, settings: Settings, say: Callable[[str], None]) -> None:
    """Print a request to try, or how to train a first model, as soon as the service answers.

    Returns at once. Where callers need a key, that is printed instead of a request; where they need
    a certificate, nothing is: there is none to ask with.
    """
    if serving.tls_client_ca is not None:
        return
    Thread(target=_greet, args=(serving, settings, say), daemon=True).start()


def address_of(serving: ServingSettings) -> str:
    """Where the service answers over HTTP."""
    scheme = "http" if serving.tls_cert is None else "https"
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    return f"{scheme}://{host}:{serving.port}"


def _greet(serving: ServingSettings, settings: Settings, say: Callable[[str], None]) -> None:
    address = address_of(serving)
    # Its certificate may name another host than the address that it listens on.
    with httpx.Client(base_url=address, verify=False, timeout=ANSWER_SECONDS) as client:
        while not _answers(client):
            time.sleep(LOOK_SECONDS)
        if serving.authentication:
            key = f"{program()} keys create --help"
            say(f"ready; callers need a key, see: {key}")
            return
        try:
            paths = client.get("/openapi.json").json()["paths"]
        except (httpx.HTTPError, ValueError):
            # It is stopping, or rejects requests: its log says why.
            return
    say(_next(address, paths, settings))


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").is_success
    except httpx.HTTPError:
        return False


def _next(address: str, paths: dict[str, Any], settings: Settings) -> str:
    """What to type; paths: those of openapi.json, whose examples are of rows in the lake."""
    for path, methods in paths.items():
        if path.startswith("/predict/"):
            body = methods["post"]["requestBody"]["content"]["application/json"]["example"]
            return f"ready; try: curl -s {address}{path} --json {shlex.quote(json.dumps(body))}"
    cases = load_use_cases(settings.use_cases, settings.databases, settings.derived).use_cases
    if not cases:
        return f"ready; there are no use cases yet: {program()} new --help"
    name, case = next(iter(cases.items()))
    return (
        f"ready; no use case has a champion yet. To have one: {program()} train {name} "
        f"--cutoff {_newest(case)}, then {program()} promote {name}; it is served at once"
    )


def _newest(case: UseCase) -> str:
    """The last partition up to now."""
    calendar, now = case.calendar, datetime.now(UTC)
    end = case.partitions.closes_at
    last = now if end is None else min(now, end - timedelta(microseconds=1), key=utc)
    return calendar.key(calendar.window_at(max(last, calendar.start, key=utc)))
