"""How runs are launched that compute a few partitions of several tables."""

IN_PROCESS = {"execution": {"config": {"in_process": {}}}}
"""A process for each step would take longer to start than the steps to run."""
