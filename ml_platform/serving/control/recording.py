"""Actions in the audit, each with the one who wanted it."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.access import Action, Along, Audit
from ml_platform.serving.control.once import Order
from ml_platform.storage import Commit, Lake

KEY = "idempotency_key"
"""Detail of an action that was asked for under a key."""
REQUEST = "request"
"""Detail that says which request it was: the tag `ml_platform/request` of its run."""


@dataclass(frozen=True)
class Recorder:
    """Appends to the audit of a deployment."""

    lake: Lake

    def record(self, order: Order, what: str, changed: str, **details: str | None) -> None:
        """Record what is about to be done in Dagster; what it refuses then has a row as well."""
        commit = Commit(order.run_id, "", "platform/audit")
        Audit(self.lake).record(_action(order, what, changed, details), commit)

    def along(self, order: Order, what: str, changed: str, **details: str | None) -> Along:
        """The row of what is a write to the lake, for its commit."""
        return Audit(self.lake).along(_action(order, what, changed, details))


def _action(order: Order, what: str, changed: str, details: Mapping[str, str | None]) -> Action:
    """An action of the one who ordered it; details that are None are left out."""
    told = {**details, REQUEST: order.run_id, KEY: order.key, **order.caller.told}
    known = {name: value for name, value in told.items() if value is not None}
    return Action(order.by, "api", what, order.use_case.name, changed, known)
