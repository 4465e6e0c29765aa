"""Dagster resources around the platform's own objects."""

from resources.lake import LakeResource
from resources.online import OnlineStoreResource
from resources.ranges import RANGE_END, RANGE_START, range_tags
from resources.registry import RegistryResource

__all__ = [
    "RANGE_END",
    "RANGE_START",
    "LakeResource",
    "OnlineStoreResource",
    "RegistryResource",
    "range_tags",
]
