"""Why a request to the service or to a page cannot be answered."""

from ml_platform.errors.base import PlatformError


class RequestError(PlatformError):
    """A request cannot be answered."""


class RequestRefused(RequestError):
    """A request is not as it should be; `column` names the culprit where it is one."""

    def __init__(self, problem: str, column: str | None = None) -> None:
        self.problem, self.column = problem, column
        super().__init__(f"column '{column}': {problem}" if column else problem)


class RuleBroken(RequestRefused):
    """A row to predict breaks a rule for which rows of its source are quarantined.

    `columns` are those that the rule reads; `row` counts from 0.
    """

    def __init__(self, source: str, rule: str, columns: tuple[str, ...], row: int) -> None:
        self.columns, self.row, self.rule = columns, row, rule
        problem = f"row {row} breaks the rule '{rule}' of {source}; a batch would not predict it"
        if len(columns) == 1:
            super().__init__(problem, columns[0])
        else:
            named = ", ".join(f"'{column}'" for column in columns)
            super().__init__(f"columns {named}: {problem}")


class ParameterRefused(RequestRefused):
    """One parameter of a request is not as it should be; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"`{field}`: {problem}")
        self.field = field


class TimeRefused(ParameterRefused):
    """A time that is well written and cannot be, by what else is known; `field` names it."""


class ParameterNotAllowed(ParameterRefused):
    """A parameter that a pipeline does not declare, or a value that its declaration rules out."""


class ClassUnknown(ParameterRefused):
    """A label that is no class of a version that serves or is tried; `field` names it."""


class KeyReused(RequestError):
    """An Idempotency-Key that came with another request before."""


class UnsupportedMedia(RequestRefused):
    """A body is in a form that is not read: another content type, or packed in another way."""


class OriginRefused(RequestError):
    """A page of somebody else, or a name that is not this service's, in a browser's request."""


class NotServed(RequestError):
    """No such use case, or no such version of it, is served here."""


class NotReviewed(RequestError):
    """A person's answer about a prediction that never waited for one."""


class WaitsNoMore(RequestError):
    """A person's answer about a prediction that was answered or skipped before, or is too old."""


class RequestTooLarge(RequestError):
    """A request has more bytes or rows than are taken."""


class TryLater(RequestError):
    """It cannot be answered now, and is worth asking again after some seconds."""

    def __init__(self, problem: str, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem)


class Overloaded(TryLater):
    """More is asked than can be answered in time."""


class KeysUnread(TryLater):
    """The lake has not been read since the service started, so nobody's key is known."""


class NotLoaded(TryLater):
    """A champion that cannot be loaded, or was not looked for yet."""


class NotKept(RequestError):
    """What had to be written down could not be: the disk is full, say."""


class ServingMisconfigured(RequestError):
    """The service cannot run with these settings."""


class RateExceeded(RequestError):
    """A caller asks more often than the limit allows."""

    def __init__(self, problem: str, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(problem)


class IssuerUnavailable(RequestError):
    """The keys that tokens are checked with are unavailable."""


class Unauthenticated(RequestError):
    """Nobody knows who asks: there is no key and no token, or none that is valid."""


class Forbidden(RequestError):
    """Who asks may not do this; names what is missing."""

    def __init__(
        self, caller: str, permission: str, use_case: str, roles: tuple[str, ...], why: str = ""
    ) -> None:
        self.permission, self.use_case = permission, use_case
        of = "every use case" if use_case == "*" else f"'{use_case[:60]}'"
        super().__init__(
            f"{why}{caller} lacks the permission '{permission}' for {of}; a role that has it: "
            f"{', '.join(roles)}"
        )
