"""A path, declared once beside its handler: what it needs, what it takes, what it answers.

Routes, the guard, the paths of health and openapi.json all follow from the declarations:

    @endpoint("POST", "/predict/{model}", needs=Need("predict"), summary="…", answers={…})
    async def predict(self, request: Request) -> Response: ...
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ml_platform.access import Permission
from ml_platform.errors import AccessError
from ml_platform.registry import ModelVersion
from ml_platform.spec.use_case import UseCase

JSON, TEXT, BINARY = "application/json", "text/plain", "application/octet-stream"
Schema: TypeAlias = "Mapping[str, Any]"
Method: TypeAlias = 'Literal["GET", "POST", "DELETE"]'
Handler: TypeAlias = "Callable[[Any, Request], Awaitable[Response]]"
Handles = TypeVar("Handles", bound=Handler)
DECLARED = "__endpoints__"
"""Attribute of a handler that has its declarations."""


@dataclass(frozen=True)
class Need:
    """What a caller has to be permitted to."""

    permission: Permission
    of: Literal["one", "some", "all"] = "one"
    """The use case that the path names, or the only one there is; any; every one."""
    instead: Permission | None = None
    """Permission that opens the path as well; the handler decides what it is enough for."""


PUBLIC = None
"""For load balancers, which have no key: whether the process can be asked, and nothing else."""


@dataclass(frozen=True)
class PathSubject:
    """What one description of a path is about."""

    case: UseCase
    model: ModelVersion | None = None
    """The version that answers, if there is one."""
    pipeline: str = ""
    """Name of a published pipeline, where the path names one."""

    @property
    def answering(self) -> ModelVersion:
        """The version that answers, of a use case that has one."""
        assert self.model is not None
        return self.model


def nothing(subject: PathSubject) -> Schema:
    """Schemas of properties that a use case adds to those of a type: none."""
    return {}


def always(subject: PathSubject) -> bool:
    """Whether a use case has a path: each one has."""
    return True


@dataclass(frozen=True)
class Body:
    """A body of JSON."""

    kind: type
    """What it is parsed into."""
    example: Callable[[PathSubject], Any]
    """A body that is answered when it is sent as it stands."""
    narrow: Callable[[PathSubject], Schema] = nothing
    """Schemas of properties, by name, that say more than the type's own do."""
    forms: tuple[tuple[str, ...], ...] = ()
    """Where exactly one of several forms is taken: the properties of each; the first is required,
    and others are not taken beside them."""
    required: bool = True


@dataclass(frozen=True)
class Answer:
    """One answer that is no problem."""

    kind: Any
    """What is encoded: a type, or a schema."""
    description: str = "The answer."
    narrow: Callable[[PathSubject], Schema] = nothing
    """As of a body."""
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A part of the path or of the query, or a header."""

    name: str
    schema: Schema
    description: str = ""
    place: Literal["path", "query", "header"] = "path"
    example: Callable[[PathSubject | None], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: Method
    path: str
    """With `{use_case}`, `{model}` (of a use case that has a champion) and `{pipeline}`, for each
    of which openapi.json has a path of its own; other parts of the path are `parameters`."""
    needs: Need | None
    summary: str
    tag: str
    """The area it belongs to."""
    answers: Mapping[int, Answer]
    problems: Mapping[int, str] = field(default_factory=dict)
    """What is said of statuses that go with a problem, besides those that any request can meet."""
    examples: Callable[[PathSubject], Mapping[int, Mapping[str, Any]]] = nothing  # type: ignore[assignment]
    """Problems by status and name."""
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    when: Callable[[PathSubject], bool] = always
    """Whether a use case has it."""
    is_health: bool = False
    """Whether it is answered on the spare connections too."""
    is_of_model: bool = False
    """Whether it is about the only use case there is where it names none."""
    handler: str = ""
    """Name of the method that answers."""

    @property
    def name(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"

    @property
    def changes(self) -> bool:
        """Whether something is started, decided or learned by it."""
        return self.needs is not None and self.needs.permission not in {"read", "predict"}


def endpoint(
    method: Method, *paths: str, needs: Need | None, **declared: Any
) -> Callable[[Handles], Handles]:
    """Declare what a handler answers; several declarations of one handler stand above each other.

    paths: all are answered alike. needs: `PUBLIC` has to be said, so that no path is public by
    an oversight. declared: fields of `Endpoint`.
    """
    is_of_model = any("{model}" in path for path in paths)

    def declare(handler: Handles) -> Handles:
        made = [
            Endpoint(
                method=method, path=path, needs=needs, is_of_model=is_of_model,
                handler=handler.__name__, **declared,
            )
            for path in paths
        ]  # fmt: skip
        setattr(handler, DECLARED, [*made, *getattr(handler, DECLARED, [])])
        return handler

    return declare


def endpoints_of(handlers: Iterable[type]) -> tuple[Endpoint, ...]:
    """What the methods of classes declare; AccessError where one path is declared twice."""
    found: dict[str, Endpoint] = {}
    for each in (each for kind in handlers for each in _declared(kind)):
        if each.name in found:
            raise AccessError(f"{each.name} is declared twice")
        found[each.name] = each
    return tuple(found.values())


def _declared(kind: type) -> Iterator[Endpoint]:
    for attribute in vars(kind).values():
        yield from getattr(attribute, DECLARED, ())
