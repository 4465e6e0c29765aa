"""Deeds in the audit, each with the one who wanted it."""

from dataclasses import dataclass

from ml_platform.access import Audit, Deed
from ml_platform.serving.control.once import Order
from ml_platform.storage import Commit, Lake

KEY = "idempotency_key"
"""Detail of a deed that was asked for under a key."""


@dataclass(frozen=True)
class Recorder:
    """Appends to the audit of a deployment."""

    lake: Lake

    def record(
        self,
        order: Order,
        what: str,
        changed: str,
        *,
        repeated: bool = False,
        **details: str | None,
    ) -> None:
        """Record what was done; see `ml_platform.access.Deed`. Details that are None are left out.

        repeated: it was found done already, and may be recorded or not.
        """
        audit, name = Audit(self.lake), order.use_case.name
        if repeated and any(
            row.deed.details.get(KEY) == order.key for row in audit.rows(what=what, use_case=name)
        ):
            return
        told = {**details, KEY: order.key}
        known = {name: value for name, value in told.items() if value is not None}
        commit = Commit(order.run_id, "", "platform/audit")
        audit.record(Deed(order.by, "api", what, name, changed, known), commit)
