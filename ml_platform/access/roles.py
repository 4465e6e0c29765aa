"""Roles, what they permit, and of which use cases. What no grant permits is denied."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from ml_platform.errors import AccessError, Forbidden

Permission = Literal[
    "read", "predict", "label", "launch", "approve", "rollback", "read_audit", "manage_keys"
]
"""Named by what is done: `label` gives labels and answers reviews, `launch` starts runs."""
Role = Literal["reader", "predictor", "labeller", "operator", "approver", "admin"]

PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    "reader": frozenset({"read"}),
    # Labels decide what the next model learns: who asks need not be who knows the answer.
    "predictor": frozenset({"read", "predict"}),
    "labeller": frozenset({"read", "label"}),
    "operator": frozenset({"read", "predict", "label", "launch", "rollback"}),
    # Whoever starts a training does not let its result serve, and the other way round.
    "approver": frozenset({"read", "approve", "rollback", "read_audit"}),
    "admin": frozenset(get_args(Permission)),
}
ANY = "*"
"""Every use case, those that are not there yet as well."""


@dataclass(frozen=True, order=True)
class Grant:
    """One role for one use case, or for all of them."""

    role: Role
    use_case: str

    def __str__(self) -> str:
        return f"{self.role}@{self.use_case}"

    def permits(self, permission: Permission, use_case: str) -> bool:
        """Whether this grant alone permits it; `ANY` asks for all use cases at once."""
        return self.use_case in {ANY, use_case} and permission in PERMISSIONS[self.role]


@dataclass(frozen=True)
class Caller:
    """Who asks, and what was granted to them."""

    name: str
    """For people to read: several callers may have the same."""
    grants: frozenset[Grant] = frozenset()
    is_proved: bool = True
    """Whether a key or a token says so; else nobody knows more than the name."""
    principal: str = ""
    """Who it is, and nobody else: `key:<id>`, `token:<issuer>#<subject>`, `address:<address>`."""
    expires_at: datetime | None = None
    """When what proves it expires."""

    def may(self, permission: Permission, use_case: str) -> bool:
        """Whether it may be done with a use case; `ANY` asks for all use cases at once.

        >>> ada = Caller("ada", frozenset({Grant("operator", "trips")}))
        >>> ada.may("launch", "trips"), ada.may("launch", "flights"), ada.may("approve", "trips")
        (True, False, False)
        """
        return any(grant.permits(permission, use_case) for grant in self.grants)

    @property
    def identity(self) -> str:
        """What identifies them; the name alone where nothing else is known."""
        return self.principal or self.name

    @property
    def details(self) -> Mapping[str, str]:
        """What a row of the audit says of them besides the name."""
        expires = {"expires": self.expires_at.isoformat()} if self.expires_at else {}
        return {"principal": self.principal, **expires} if self.principal else {}

    def those_where(self, permission: Permission, use_cases: Iterable[str]) -> tuple[str, ...]:
        """The use cases with which it may be done."""
        return tuple(name for name in use_cases if self.may(permission, name))

    def require(self, permission: Permission, use_case: str, why: str = "") -> None:
        """Raise Forbidden, which names what is missing, where it may not be done.

        why: what it is asked for, before the rest of the message.
        """
        if not self.may(permission, use_case):
            raise Forbidden(self.name, permission, use_case, roles_with(permission), why)


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """Roles that permit it."""
    return tuple(role for role, permitted in PERMISSIONS.items() if permission in permitted)


def parse_grant(text: str) -> Grant:
    """A grant from `role@use_case`, or `role@*`; AccessError.

    A role alone is none: what it is for has to be said.

    >>> parse_grant("operator@trips")
    Grant(role='operator', use_case='trips')
    """
    role, at, use_case = text.partition("@")
    if not at or not use_case:
        raise AccessError(f"'{text[:60]}': write role@use_case, or role@{ANY} for every use case")
    for known in get_args(Role):
        if role == known:
            return Grant(known, use_case)
    raise AccessError(f"there is no role '{role[:40]}'; there are: {', '.join(get_args(Role))}")
