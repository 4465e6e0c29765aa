"""Who may do what: roles, keys, tokens of a login, and the audit of what was done."""

from ml_platform.access.audit import START, Action, Along, Audit, Channel, Row
from ml_platform.access.audit_checkpoints import AuditCheckpoint
from ml_platform.access.keys import Key, KeyRing, create_key, list_keys, revoke_key
from ml_platform.access.ownership import Ownership
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
    "START",
    "Action",
    "Along",
    "Audit",
    "AuditCheckpoint",
    "Caller",
    "Channel",
    "Grant",
    "Key",
    "KeyRing",
    "Ownership",
    "Permission",
    "Role",
    "Row",
    "create_key",
    "list_keys",
    "parse_grant",
    "revoke_key",
]
