"""Everything that openapi.json allows, asked by those who may, those who may not, and nobody."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from ml_platform.access import ANY, Caller, create_key, parse_grant, revoke_key
from ml_platform.serving.http.declared import ENDPOINTS
from tests import dagster_servers as servers
from tests.attacked import CHECKS, deploy_all, find_no_fault
from tests.served import Deployment, Served
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

NEEDS = {declared.name: declared.needs for declared in ENDPOINTS}
GRANTS = (
    "reader@trips", "predictor@trips", "labeller@trips", "operator@trips",
    "approver@trips", "admin@trips", "reader@*", "admin@flights",
)  # fmt: skip


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy_all(tmp_path_factory.mktemp("asked"))
    url = f"http://127.0.0.1:{servers.free_port()}"
    yield replace(made, settings=made.settings.model_copy(update={"dagster_url": url}))
    made.lake.close()


@pytest.fixture(scope="module")
def keys(deployment: Deployment) -> Mapping[str, str]:
    """A key by each grant, and two of an admin that are over."""

    def made(grant: str, days: float = 1) -> tuple[str, str]:
        expires_at = datetime.now(UTC) + timedelta(days=days)
        key, text = create_key(
            deployment.lake, grant, [parse_grant(grant)], expires_at=expires_at, created_by="ada",
            commit=COMMIT,
        )  # fmt: skip
        return key.id, text

    revoked, expired = made("admin@*"), made("admin@*", days=1e-5)
    revoke_key(deployment.lake, revoked[0], revoked_by="ada", commit=COMMIT)
    return {
        **{grant: made(grant)[1] for grant in ("admin@*", *GRANTS)},
        "revoked": revoked[1],
        "expired": expired[1],
    }


@pytest.fixture(scope="module")
def served(deployment: Deployment, keys: Mapping[str, str]) -> Iterator[Served]:
    with deployment.served(authentication=True, failures_burst=1_000_000) as served:
        yield served


@pytest.fixture(scope="module")
def document(
    served: Served, keys: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the service says of itself to somebody who may do everything."""
    headers = {"x-api-key": keys["admin@*"]}
    file = tmp_path_factory.mktemp("described") / "openapi.json"
    file.write_bytes(
        httpx2.get(f"http://{served.http}/openapi.json", headers=headers, timeout=60).content
    )
    return file


def needed(method: str, path: str) -> str:
    """The name under which it is said what a path needs."""
    for name in NEEDS:
        wanted, _, template = name.partition(" ")
        parts, named = path.split("/"), template.split("/")
        if (
            wanted == method
            and len(parts) == len(named)
            and all(n.startswith("{") or n == p for n, p in zip(named, parts, strict=True))
        ):
            return name
    return ""


def answered_to(
    served: Served, document: Path, folder: Path, *credentials: str
) -> dict[str, set[int]]:
    """Statuses by what a path needs, of everything that whoever has these credentials asks."""
    headers = [option for each in credentials for option in ("--header", each)]
    asked = find_no_fault(
        str(document), folder, "--url", f"http://{served.http}", "--mode", "positive", *headers,
        phases="examples,fuzzing", examples=1, good=[503],
    )  # fmt: skip
    statuses = defaultdict(set)
    for each in asked:
        statuses[needed(each.method, each.path)].add(each.status)
        if each.status == 401:
            assert each.headers["www-authenticate"] == 'Bearer realm="ml-platform"'
    return statuses


@pytest.mark.exhaustive
def test_who_may_do_everything_finds_no_fault_and_no_door_without_a_lock(
    served: Served, keys: Mapping[str, str], tmp_path: Path
) -> None:
    find_no_fault(
        f"http://{served.http}/openapi.json", tmp_path, "--header", f"X-API-Key: {keys['admin@*']}",
        checks=(*CHECKS, "ignored_auth"), good=[503], examples=5,
    )  # fmt: skip


@pytest.mark.parametrize("grant", GRANTS)
def test_a_role_gets_what_it_permits_and_403_elsewhere(
    served: Served, document: Path, keys: Mapping[str, str], tmp_path: Path, grant: str
) -> None:
    credentials = f"Authorization: Bearer {keys[grant]}"
    statuses = answered_to(served, document, tmp_path, credentials)
    assert statuses.keys() == NEEDS.keys()
    caller = Caller(grant, frozenset({parse_grant(grant)}))
    for name, need in NEEDS.items():
        of = ANY if need is not None and need.of == "all" else "trips"
        if need is None or caller.may(need.permission, of):
            assert not {401, 403} & statuses[name], name
        else:
            assert statuses[name] == {403}, name


@pytest.mark.parametrize(
    "who", ["nobody", "basic", "wrong", "malformed", "cut", "revoked", "expired"]
)
def test_whoever_is_not_known_gets_401_everywhere(
    served: Served, document: Path, keys: Mapping[str, str], tmp_path: Path, who: str
) -> None:
    valid = keys["admin@*"]
    credentials = {
        "nobody": [],
        "basic": ["Authorization: Basic YWRhOmFkYQ=="],
        "wrong": [f"Authorization: Bearer {valid[:-4]}AAAA"],
        "malformed": ["X-API-Key: mlp__", f"Authorization: {valid}"],
        "cut": [f"X-API-Key: {valid[:-1]}"],
        "revoked": [f"X-API-Key: {keys['revoked']}"],
        "expired": [f"Authorization: Bearer {keys['expired']}"],
    }
    statuses = answered_to(served, document, tmp_path, *credentials[who])
    assert statuses.keys() == NEEDS.keys()
    for name, need in NEEDS.items():
        if need is None:
            assert statuses[name] == {200}
        else:
            assert statuses[name] == {401}, name
