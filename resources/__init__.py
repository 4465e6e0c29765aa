"""Dagster resources around the platform's own objects."""

from ml_platform_dagster.resources.lake import LakeResource
from ml_platform_dagster.resources.online import OnlineStoreResource
from ml_platform_dagster.resources.private import RANGE_END, RANGE_START
from ml_platform_dagster.resources.ranges import range_tags
from ml_platform_dagster.resources.registry import RegistryResource

__all__ = [
    "RANGE_END",
    "RANGE_START",
    "LakeResource",
    "OnlineStoreResource",
    "RegistryResource",
    "range_tags",
]
