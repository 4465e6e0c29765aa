"""The page about production names every limit of the service as it is, and what one sees of it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ml_platform.settings import ServingSettings
from tests.served import ROW, Deployment

PAGE = (Path(__file__).parents[1] / "docs" / "production.md").read_text(encoding="utf-8")
LIMIT = re.compile(r"most_|longest_wait|waiting_|burst|_per_second$|^(head|body|drain|silent)_")
"""Names of settings that bound what callers may do, or how long something may take."""
INVOKE = "/invocations"
BODY = {"dataframe_records": [ROW]}


def documented() -> dict[str, tuple[str, str]]:
    """Default of each setting in the table of limits, and what one sees beyond it."""
    table = PAGE.partition("\n## Limits\n")[2].partition("\nWithout a setting")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip("`").lower(): (row[1], row[4]) for row in rows}


def test_every_limit_stands_there_with_its_default() -> None:
    limits = {name for name in ServingSettings.model_fields if LIMIT.search(name)}
    assert documented().keys() == limits
    for name, (default, _) in documented().items():
        known = ServingSettings.model_fields[name].default
        assert default == ("none" if known is None else f"{known:.0f}"), name


def too_often(client: TestClient) -> int:
    client.post(INVOKE, json=BODY)
    return client.post(INVOKE, json=BODY).status_code


def nobody_too_often(client: TestClient) -> int:
    assert client.post(INVOKE, json=BODY).status_code == 401
    return client.post(INVOKE, json=BODY).status_code


def two_rows(client: TestClient) -> int:
    return client.post(INVOKE, json={"dataframe_records": [ROW, ROW]}).status_code


BEYOND: dict[str, tuple[dict[str, object], Callable[[TestClient], int]]] = {
    "most_bytes": ({"most_bytes": 10}, two_rows),
    "most_rows": ({"most_rows": 1}, two_rows),
    "requests_per_second": ({"requests_per_second": 0.001, "burst": 1}, too_often),
    "burst": ({"requests_per_second": 0.001, "burst": 1}, too_often),
    "failures_per_second": (
        {"authentication": True, "failures_per_second": 0.001, "failures_burst": 1},
        nobody_too_often,
    ),
    "failures_burst": (
        {"authentication": True, "failures_per_second": 0.001, "failures_burst": 1},
        nobody_too_often,
    ),
}
"""Of limits that need neither a network nor time: settings, and what goes beyond them. The others
are in test_serving_limits, test_serving_admission and test_serving_stopping."""


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("setting", BEYOND)
def test_beyond_it_one_sees_what_stands_there(deployment: Deployment, setting: str) -> None:
    changes, ask = BEYOND[setting]
    seen = documented()[setting][1]
    if seen == "the same":
        seen = list(documented().values())[list(documented()).index(setting) - 1][1]
    with deployment.client(**changes) as client:
        assert f"`{ask(client)}`" in seen
