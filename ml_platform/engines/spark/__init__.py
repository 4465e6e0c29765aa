"""Spark, for a partition or a range that outgrows one machine."""
