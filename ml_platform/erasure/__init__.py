"""Erasure: an entity is deleted everywhere, also from what older snapshots read."""

from ml_platform.erasure.entity import Entity, key_columns, named_entity
from ml_platform.erasure.erase import Deployment, Erased, Erasure, erase

__all__ = [
    "Deployment",
    "Entity",
    "Erased",
    "Erasure",
    "erase",
    "key_columns",
    "named_entity",
]
