"""Endpoints whose certificate is signed by an authority of one's own, and that ask for one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from ml_platform.errors import EndpointRefused
from ml_platform.scoring import score
from ml_platform.settings import EndpointSettings
from ml_platform.spec.scoring import Scorer
from ml_platform.storage import Lake
from tests.served import Deployment, Served, deployed
from tests.test_serving_tls import issue
from tests.trips_use_case import COMMIT, days

SCORED = days(26, 26)


@dataclass(frozen=True)
class World:
    """A service that takes only clients with a certificate, and files of one."""

    made: Deployment
    served: Served
    files: dict[str, Path]

    def score(self, protocol: str, **known: Path) -> int:
        """Score a day through it; how many rows were predicted there."""
        address = self.served.grpc if protocol == "grpcs" else self.served.http
        scorer = Scorer.model_validate({"url": f"{protocol}://{address}", "check": "all"})
        endpoints = {"trips": EndpointSettings(**known)}
        settings = self.made.settings.model_copy(
            update={"endpoints": endpoints, "server_wait_seconds": 600}
        )
        case = self.made.use_case.model_copy(update={"scorer": scorer})
        with self.made.lake.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS lake.trips.predictions")
        for file in (settings.root / "endpoint_answers").glob("*"):
            file.unlink()
        lake = Lake(settings)
        try:
            report = score(lake, self.made.registry, case, SCORED, COMMIT)
        finally:
            lake.close()
        assert report.in_process == ()
        assert report.written is not None
        return sum(report.written.rows.values())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    authority = trustme.CA()
    folder = tmp_path_factory.mktemp("endpoint_tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("batches@example.org")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    declared = "serving: {unknown_categories: accept}\n"
    server: dict[str, Any] = issue(authority, folder)
    with (
        deployed(folder, declared=declared) as made,
        made.served(**server, tls_client_ca=folder / "ca.pem") as served,
    ):
        yield World(made, served, {path.name: path for path in folder.glob("*")})


@pytest.mark.parametrize("protocol", ["https", pytest.param("grpcs", marks=pytest.mark.slow)])
def test_an_authority_and_a_certificate_of_ones_own(world: World, protocol: str) -> None:
    files = world.files
    shown = {"certificate": files["client.pem"], "key": files["client.key"]}
    assert world.score(protocol, ca=files["ca.pem"], **shown) == 40
    assert world.score(protocol, ca=files["ca.pem"], certificate=files["both.pem"]) == 40


@pytest.mark.parametrize("protocol", ["https", pytest.param("grpcs", marks=pytest.mark.slow)])
def test_a_server_that_nobody_known_has_signed_is_refused_at_once(
    world: World, protocol: str
) -> None:
    with pytest.raises(EndpointRefused, match="CERTIFICATE_VERIFY_FAILED"):
        world.score(protocol)


FILES = {
    "not there": ({"ca": "no.pem"}, "no.pem, which is unusable: No such file"),
    "no authority": ({"ca": "key.pem"}, "key.pem, which is unusable: "),
    "no certificate": ({"certificate": "key.pem"}, "key.pem, which is unusable: "),
    "another key": (
        {"certificate": "client.pem", "key": "key.pem"}, "client.pem, which is unusable: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_named(world: World, name: str) -> None:
    given, said = FILES[name]
    with pytest.raises(EndpointRefused, match=said):
        world.score(
            "https", **{k: world.files.get(f, Path("/nowhere") / f) for k, f in given.items()}
        )
