"""Dagster resources around the platform's own objects."""

from resources.lake import LakeResource
from resources.registry import RegistryResource

__all__ = ["LakeResource", "RegistryResource"]
