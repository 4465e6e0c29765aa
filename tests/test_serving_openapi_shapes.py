"""What openapi.json allows is what the service takes: every example, changed in one place."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from ml_platform.serving.datatypes import BYTES, NUMPY_TYPES
from ml_platform.sources import ingest
from tests.attacked import JSON, REVIEWED
from tests.served import Deployment, declare, deploy, published, rows_of
from tests.trips_use_case import COMMIT, days

pytestmark = pytest.mark.slow

ALIKE = "/control/|/invocations|/endpoints/|.*/versions/"
"""Paths that are of another kind, or the same as others."""
NOT_OF_TASKS = "(?!/feedback/|/review/)"
VALUES = (
    None, True, False, 0, 1, -1, 1.5, 300, 2**40, 10**19, 1e300, "", "x", "1", "1.5", "true",
    "2024-03-20T00:00:00Z", [], {}, [1], {"x": 1},
)  # fmt: skip
ABOUT_VALUES = re.compile(
    # A schema knows neither the categories of a column, nor which numbers floats have, nor that
    # 1e300 is no whole number;
    "a category the model has not seen|too large to be exact|expected `int`, got `float`"
    # not what a text has to be like to be a time, nor when it can be;
    "|is not TIMESTAMP|should be a time such as|its event time|known_at"
    # and not what two parts of a body say together.
    "|asks for|is there twice|has . values where|is missing; send null|name the prediction by"
    "|predictions are called here|is not a class that|all its values"
)
"""What is said of bodies that are refused for more than their shape."""
# Which value is of which column, the names beside the rows say.
ABOUT_ORDER = re.compile(f"{ABOUT_VALUES.pattern}|is expected|always had one")


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    declared = {
        "binary": REVIEWED, "multiclass": "serving: {log: {}, review: {below: 0.99}}\n"
    }.get(request.param, "serving: {log: {}}\n")  # fmt: skip
    made = deploy(tmp_path_factory.mktemp(request.param), request.param)
    spec = made.use_case.folder / "use_case.yaml"
    # With a column that always has a value, under another name.
    columns = ("[city, distance]", '[city, distance, "trip AS ticket"]')
    spec.write_text(spec.read_text().replace(*columns))
    made = declare(made, declared)
    made.promote(20)
    published(made)
    with made.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(29)})
    ingest(made.lake, made.use_case, "requests", days(29, 29), COMMIT)
    yield made
    made.lake.close()


def changed(value: Any) -> Iterator[Any]:
    """Copies of a body, each with one part replaced, left out, doubled or added."""
    yield from VALUES
    if isinstance(value, dict):
        yield {**value, "unheard_of": 1}
        for name, part in value.items():
            yield {key: kept for key, kept in value.items() if key != name}
            for other in changed(part):
                yield {**value, name: other}
    if isinstance(value, list):
        yield [*value, *value]
        for place, part in enumerate(value):
            for other in changed(part):
                yield [*value[:place], other, *value[place + 1 :]]


def bodies(path: str, example: Any) -> Iterator[Any]:
    """An example and all that is changed in it, and others that say the same in another form."""
    yield from changed(example)
    if path.endswith("/invocations"):
        (row,) = example["dataframe_records"]
        for name in ("instances", "inputs"):
            yield from changed({name: [list(row.values())]})
            yield from changed({name: {column: [value] for column, value in row.items()}})
        split = {"columns": list(row), "data": [list(row.values())]}
        yield from changed({"dataframe_split": split})
        yield {"dataframe_split": {"data": split["data"]}}
        yield {"dataframe_split": {"columns": [*row][::-1], "data": [[*row.values()][::-1]]}}
    if path.endswith("/infer"):
        for tensor in (0, 1):
            for datatype in (*NUMPY_TYPES, BYTES):
                for value in (None, True, 1, -1, 1.5, 300, 10**19, 1e300, "x", [1]):
                    other = copy.deepcopy(example)
                    other["inputs"][tensor] |= {"datatype": datatype, "data": [value]}
                    yield other
        nested = copy.deepcopy(example)
        for each in nested["inputs"]:
            each |= {"shape": [1, 1], "data": [each["data"]]}
        yield nested


def described(document: Mapping[str, Any], task: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Bodies of the paths that need no orchestrator, by path; of each task what is its own."""
    for path, methods in document["paths"].items():
        if "post" in methods and not re.match(ALIKE if task == "binary" else NOT_OF_TASKS, path):
            yield path, methods["post"]["requestBody"]["content"]["application/json"]


def test_what_the_schema_allows_is_taken_and_what_it_does_not_is_refused(
    client: TestClient, deployment: Deployment
) -> None:
    document = client.get("/openapi.json").json()
    wrong, counts = [], {True: 0, False: 0}
    for path, content in described(document, deployment.use_case.label.task):
        schema = {**content["schema"], "components": document["components"]}
        validator = Draft202012Validator(schema)
        url = path
        if path.startswith("/review/"):
            (first, *_) = client.get("/review/trips").json()["waiting"]
            url = path.format(prediction=first["prediction_id"])
        # Those that are refused come first: a label that is taken ends the wait for one.
        for body in sorted(bodies(path, content["example"]), key=validator.is_valid):
            answer = client.post(url, content=json.dumps(body), headers=JSON)
            is_allowed = validator.is_valid(body)
            counts[is_allowed] += 1
            refused = answer.status_code in (400, 422)
            said = str(answer.json().get("detail"))
            about = ABOUT_ORDER if "dataframe_split" in str(body) else ABOUT_VALUES
            if refused == is_allowed and not (is_allowed and about.search(said)):
                wrong.append(f"{path} {is_allowed=} {answer.status_code}: {body} {said[:150]}")
    assert not wrong, "\n".join(wrong)
    assert min(counts.values()) > 10
