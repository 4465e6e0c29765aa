"""The service described in OpenAPI 3.1: every use case with its own columns and an example."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import msgspec

from ml_platform.access import PERMISSIONS
from ml_platform.serving.http.endpoints import (
    BINARY,
    Answer,
    Body,
    Endpoint,
    Parameter,
    PathSubject,
)
from ml_platform.serving.http.problems import SAID, Problem
from ml_platform.serving.http.schemas import only
from ml_platform.serving.versions.live import LiveUseCase, LiveVersions

Paths: TypeAlias = "dict[str, dict[str, Any]]"
"""Operations by path and method in small letters."""
REFERENCE = "#/components/schemas/"
SCHEMES: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of a login."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
OF_CALLERS = (401, 503)
"""What becomes of those who do not say who they are, or whose token cannot be checked."""
OF_ANYBODY = (403, 429)
"""Without authentication too: pages of others may not ask."""
HEADERS = {
    "X-Request-Id": {
        "description": "The caller's own, or a new one; it is on each line of the log.",
        "schema": {"type": "string"},
    }
}
RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer"}}
WHO_ASKS = {"description": "How to say who asks.", "schema": {"type": "string"}}
OF_PROBLEMS: Mapping[int, Mapping[str, Any]] = {
    401: {"WWW-Authenticate": {**WHO_ASKS, "required": True}},
    429: {"Retry-After": {**RETRY_AFTER, "required": True}},
    503: {"Retry-After": RETRY_AFTER},
}
"""Headers that go with problems, by status."""


def describe(
    live: LiveVersions,
    names: Iterable[str],
    endpoints: Sequence[Endpoint],
    *,
    authentication: bool = False,
) -> dict[str, Any]:
    """The document, of the versions of some use cases that serve now.

    authentication: whether callers have to say who they are.
    """
    served = [live.of(name) for name in names]
    is_only_one = len(live.names) == 1
    types = Types(endpoints)
    paths: Paths = {}
    for each in endpoints:
        for path, subject in _expanded(each, served, is_only_one):
            described = _operation(each, path, subject, types, authentication)
            paths.setdefault(path, {})[each.method.lower()] = described
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Predictions",
            "version": "1",
            "description": "Predictions by key, by the Open Inference Protocol v2 and by MLflow's "
            "scoring protocol; feedback, reviews and monitoring; runs, decisions and pipelines.",
        },
        "paths": paths,
        "components": {"schemas": types.used_by(paths)},
    }
    if authentication:
        document["components"]["securitySchemes"] = dict(SCHEMES)
        document["security"] = [{name: []} for name in SCHEMES]
    return document


class Types:
    """Schemas of the types that requests are parsed into and answers encoded from."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        answers = (answer.kind for each in endpoints for answer in each.answers.values())
        bodies = (each.body.kind for each in endpoints if each.body)
        self._kinds = tuple(dict.fromkeys([Problem, *bodies, *answers]))
        self._references, self._schemas = _schemas(self._kinds)

    def of(self, kind: Any, narrowed: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of a type: by reference, or in full where properties say more."""
        reference = self._references[self._kinds.index(kind)]
        if not narrowed:
            return reference
        schema = self._schemas[reference["$ref"].removeprefix(REFERENCE)]
        # Of a type that differs from use case to use case there is no one name.
        unnamed = {key: value for key, value in schema.items() if key != "title"}
        return {**unnamed, "properties": {**schema["properties"], **narrowed}}

    def used_by(self, paths: Paths) -> dict[str, Any]:
        """Those that are referred to, by name."""
        found: dict[str, Any] = {}
        waiting = _referred(paths)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._schemas[name]
                waiting |= _referred(found[name])
        return dict(sorted(found.items()))


@cache
def _schemas(kinds: tuple[Any, ...]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    references, schemas = msgspec.json.schema_components(kinds, ref_template=f"{REFERENCE}{{name}}")
    return [_plain(each) for each in references], _plain(schemas)


def _plain(schema: Any) -> Any:
    """As tools want it: no default of null, which some take for a value, and no list of nothing."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    items: dict[str, Any] = {"items": {}} if schema.get("type") == "array" else {}
    kept = {k: _plain(v) for k, v in schema.items() if not (k == "default" and v is None)}
    return {**items, **kept}


def _referred(described: Any) -> set[str]:
    return set(re.findall(rf'"{REFERENCE}([^"]+)"', msgspec.json.encode(described).decode()))


def _expanded(
    each: Endpoint, served: Sequence[LiveUseCase], is_only_one: bool
) -> Iterator[tuple[str, PathSubject | None]]:
    """Paths of the document, one for each use case and pipeline that the path names."""
    names_one = "{use_case}" in each.path or "{model}" in each.path
    if not names_one and not each.is_of_model:
        yield each.path, None
        return
    if not names_one and not is_only_one:
        return
    for live in served:
        case = live.use_case
        named = each.path.replace("{use_case}", case.name).replace("{model}", case.name)
        pipelines = case.published_pipelines if "{pipeline}" in named else [""]
        for pipeline in pipelines:
            subject = PathSubject(case, live.champion, pipeline)
            if (live.champion or not each.is_of_model) and each.when(subject):
                yield named.replace("{pipeline}", pipeline), subject


def _operation(
    each: Endpoint, path: str, subject: PathSubject | None, types: Types, authentication: bool
) -> dict[str, Any]:
    about = subject and (subject.pipeline or subject.case.name)
    described: dict[str, Any] = {
        "operationId": _operation_id(each.method, path),
        "summary": f"{each.summary}: {about}" if about else each.summary,
        "description": _needed(each, subject),
        "tags": [*([subject.case.name] if subject else []), each.tag],
        "parameters": [_parameter(parameter, subject) for parameter in each.parameters],
        "requestBody": each.body and subject and _body(each.body, subject, types),
        "responses": {
            **{str(s): _answer(a, subject, types) for s, a in each.answers.items()},
            **_problems(each, subject, authentication),
        },
    }
    if each.needs is None:
        described["security"] = []
    else:
        described["x-permission"] = each.needs.permission
    return {name: value for name, value in described.items() if value is not None and value != ""}


def _operation_id(method: str, path: str) -> str:
    """What clients that are generated call an operation.

    >>> _operation_id("POST", "/v2/models/flight_delays/versions/{version}/infer")
    'post_v2_models_flight_delays_versions_version_infer'
    """
    return "_".join([method.lower(), *(re.findall(r"\w+", path) or ["root"])])


def _needed(each: Endpoint, subject: PathSubject | None) -> str:
    """What an operation is about, and who may ask for it."""
    need, said = each.needs, ""
    if subject:
        pipelines = subject.case.published_pipelines
        described = pipelines[subject.pipeline].description if subject.pipeline else ""
        about = described or subject.case.description
        said = f"{about} " if about.endswith((".", "?", "!")) else f"{about}. "
    if need is None:
        return f"{said}Needs no permission."
    roles = ", ".join(role for role, has in PERMISSIONS.items() if need.permission in has)
    instead = f"; with `{need.instead}` alone, part of it is open" if need.instead else ""
    return f"{said}Needs the permission `{need.permission}` (roles: {roles}){instead}."


def _parameter(parameter: Parameter, subject: PathSubject | None) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "schema": dict(parameter.schema),
    }
    if parameter.description:
        described["description"] = parameter.description
    if parameter.example is not None:
        described["example"] = parameter.example(subject)
    return described


def _body(body: Body, subject: PathSubject, types: Types) -> dict[str, Any]:
    schema = types.of(body.kind, body.narrow(subject))
    if body.forms:
        schema = {"oneOf": [only(schema, names) for names in body.forms]}
    content = {"application/json": {"schema": schema, "example": body.example(subject)}}
    return {"required": body.required, "content": content}


def _answer(answer: Answer, subject: PathSubject | None, types: Types) -> dict[str, Any]:
    schema = types.of(answer.kind, answer.narrow(subject) if subject else {})
    binary = {"type": "string", "format": "binary"}
    more = {name: {"schema": {"type": "string"}} for name in answer.headers}
    content = {kind: {"schema": binary if kind == BINARY else schema} for kind in answer.media}
    return {"description": answer.description, "headers": {**HEADERS, **more}, "content": content}


def _problems(each: Endpoint, subject: PathSubject | None, authentication: bool) -> dict[str, Any]:
    """Answers that are problems, by status: those of the path and those that any request meets."""
    said = dict(each.problems)
    if each.needs is not None:
        more = (*OF_ANYBODY, *(OF_CALLERS if authentication else ()))
        said = {**{status: SAID[status] for status in more}, **said}
    examples = each.examples(subject) if subject else {}
    return {
        str(status): _problem(status, said[status], examples.get(status, {}))
        for status in sorted(said.keys() - each.answers.keys())
    }


def _problem(status: int, said: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"{REFERENCE}Problem"}}
    if examples:
        content["examples"] = {name: {"value": problem} for name, problem in examples.items()}
    return {
        "description": said,
        "headers": {**HEADERS, **OF_PROBLEMS.get(status, {})},
        "content": {"application/problem+json": content},
    }
