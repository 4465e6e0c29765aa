"""Queries of DuckDB as queries of Spark that yield the same rows."""

from ml_platform.spec.spark_sql.translation import LakeTable, SparkQuery, Untranslatable, translate

__all__ = ["LakeTable", "SparkQuery", "Untranslatable", "translate"]
