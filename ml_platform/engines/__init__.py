"""Where features of a range are computed: in this process, or by Spark."""

from ml_platform.engines.features import compute_features

__all__ = ["compute_features"]
