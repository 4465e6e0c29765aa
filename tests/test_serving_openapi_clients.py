"""Clients that others' tools generate from openapi.json work against the service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.served import Served, deployed

pytestmark = pytest.mark.slow
GENERATORS = Path(__file__).parents[1] / ".venv-clients"
ASK = """
import inspect, json, sys, typing
from importlib import import_module
from pathlib import Path

from predictions_client import Client, models

address, document = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
client = Client(base_url=address, raise_on_unexpected_status=True)
for path, methods in document["paths"].items():
    described = methods.get("post")
    if described is None or "/control/" in path:
        continue
    module = import_module(
        f"predictions_client.api.{described['tags'][0]}.{described['operationId']}"
    )
    example = described["requestBody"]["content"]["application/json"]["example"]
    kinds = typing.get_type_hints(module.sync_detailed)["body"]
    kind = (typing.get_args(kinds) or (kinds,))[0]
    more = {"version": "1"} if "{version}" in path else {}
    answer = module.sync_detailed(client=client, body=kind.from_dict(example), **more)
    print(path, int(answer.status_code), type(answer.parsed).__name__)
"""


PREDICT = """
import createClient from "openapi-fetch";
import type { paths } from "./api.d.ts";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const row = { city: "Boston", distance: 21.5, pace__pace: 0.36 };
const answered = await client.POST("/invocations", { body: { dataframe_records: [row] } });
if (answered.error) throw new Error(answered.error.detail);
const refused = await client.POST("/invocations", {
  body: { dataframe_records: [{ ...row, city: "Bostn" }] },
});
console.log(answered.data.predictions.length, refused.error?.column);
"""


def require(program: Path) -> None:
    """Skip where a generator is not installed."""
    if not program.exists():
        pytest.skip(f"{program.name} is not installed: make clients")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        deployed(tmp_path_factory.mktemp("clients"), online=True) as made,
        made.served() as served,
    ):
        yield served


@pytest.fixture(scope="module")
def document(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    file.write_text(httpx2.get(f"http://{served.http}/openapi.json", timeout=60).text)
    return file


def test_every_operation_has_a_name_of_its_own(document: Path) -> None:
    paths = json.loads(document.read_text())["paths"]
    names = [each["operationId"] for methods in paths.values() for each in methods.values()]
    assert len(names) == len(set(names))


def test_a_python_client_has_every_path_and_its_predictions_are_answered(
    served: Served, document: Path, tmp_path: Path
) -> None:
    require(GENERATORS / "bin" / "openapi-python-client")
    generate = [
        GENERATORS / "bin" / "openapi-python-client", "generate", "--path", str(document),
        "--output-path", str(tmp_path / "predictions_client"), "--meta", "none",
    ]  # fmt: skip
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = subprocess.run(
        generate, env={**os.environ, "PATH": programs}, capture_output=True, text=True, check=True
    )
    # It warns of each path that it leaves out.
    assert "warning" not in (made.stdout + made.stderr).lower()
    asked = subprocess.run(
        [sys.executable, "-c", ASK, f"http://{served.http}", str(document)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answered = [line.split() for line in asked.stdout.splitlines()]
    assert {path for path, *_ in answered} >= {
        "/predict/trips",
        "/invocations",
        "/mlflow/trips/invocations",
        "/v2/models/trips/infer",
        "/v2/models/trips/versions/{version}/infer",
    }
    assert {status for _, status, _ in answered} == {"200"}
    assert all(kind.endswith("Response200") for *_, kind in answered)


@pytest.mark.exhaustive
def test_a_typescript_client_is_checked_by_types_and_answered(
    served: Served, document: Path, tmp_path: Path
) -> None:
    programs = GENERATORS / "node_modules" / ".bin"
    require(programs / "openapi-typescript")
    (tmp_path / "node_modules").symlink_to(GENERATORS / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "ask.ts").write_text(PREDICT)

    def run(*command: Path | str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )

    options = ("--strict", "--module", "nodenext", "--target", "es2022", "--types", "node")
    made = run(programs / "openapi-typescript", str(document), "-o", "api.d.ts")
    assert made.returncode == 0, made.stderr
    checked = run(programs / "tsc", *options, "--outDir", "out", "ask.ts")
    assert (checked.returncode, checked.stdout) == (0, "")
    asked = run("node", "out/ask.js", f"http://{served.http}")
    assert asked.stdout == "1 city\n", asked.stderr
    # A column that is misspelt is found without asking anybody.
    (tmp_path / "ask.ts").write_text(PREDICT.replace("distance:", "distnce:"))
    assert "distnce" in run(programs / "tsc", *options, "--noEmit", "ask.ts").stdout
