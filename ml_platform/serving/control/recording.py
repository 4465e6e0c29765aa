"""Actions in the audit, each with the one who wanted it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.access import Action, Along, Audit
from ml_platform.serving.control.once import ControlRequest
from ml_platform.storage import Commit, Lake

KEY = "idempotency_key"
"""Detail of an action that was asked for under a key."""
REQUEST = "request"
"""Detail that says which request it was: the tag `ml_platform/request` of its run."""


@dataclass(frozen=True)
class Recorder:
    """Appends to the audit of a deployment."""

    lake: Lake

    def record(
        self, request: ControlRequest, what: str, changed: str, **details: str | None
    ) -> None:
        """Record what is about to be done in Dagster; what it refuses then has a row as well."""
        commit = Commit(request.run_id, "", "platform/audit")
        Audit(self.lake).record(_action(request, what, changed, details), commit)

    def along(
        self, request: ControlRequest, what: str, changed: str, **details: str | None
    ) -> Along:
        """The row of what is a write to the lake, for its commit."""
        return Audit(self.lake).along(_action(request, what, changed, details))


def _action(
    request: ControlRequest, what: str, changed: str, details: Mapping[str, str | None]
) -> Action:
    """An action of the one who requested it; details that are None are left out."""
    given = {**details, REQUEST: request.run_id, KEY: request.key, **request.caller.details}
    known = {name: value for name, value in given.items() if value is not None}
    return Action(request.by, "api", what, request.use_case.name, changed, known)
