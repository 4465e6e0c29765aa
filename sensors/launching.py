"""How runs are launched that compute a few partitions of several tables."""

from typing import Any

IN_PROCESS: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}
"""A process for each step would take longer to start than the steps to run."""
