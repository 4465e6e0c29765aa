"""Erasure: an entity is deleted everywhere, also from what older snapshots read."""

from ml_platform.erasure.backups import backups_with, delete_backups
from ml_platform.erasure.digests import digest_of
from ml_platform.erasure.entity import Entity, key_columns, named_entity
from ml_platform.erasure.erase import Deployment, Erased, Erasure, erase

__all__ = [
    "Deployment",
    "Entity",
    "Erased",
    "Erasure",
    "backups_with",
    "delete_backups",
    "digest_of",
    "erase",
    "key_columns",
    "named_entity",
]
