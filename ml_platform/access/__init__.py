"""Who may do what: roles, keys, tokens of a login, and the audit of what was done."""

from ml_platform.access.audit import Audit, Deed, Row
from ml_platform.access.keys import Key, KeyRing, create_key, list_keys, revoke_key
from ml_platform.access.roles import (
    ANY,
    PERMISSIONS,
    Caller,
    Grant,
    Permission,
    Role,
    parse_grant,
)

__all__ = [
    "ANY",
    "PERMISSIONS",
    "Audit",
    "Caller",
    "Deed",
    "Grant",
    "Key",
    "KeyRing",
    "Permission",
    "Role",
    "Row",
    "create_key",
    "list_keys",
    "parse_grant",
    "revoke_key",
]
