"""What openapi.json says of the service's paths, a module for each group of them."""

from ml_platform.serving.http.paths.control import control_paths
from ml_platform.serving.http.paths.feedback import feedback_paths
from ml_platform.serving.http.paths.inference import inference_paths
from ml_platform.serving.http.paths.invocations import invocation_paths
from ml_platform.serving.http.paths.monitoring import monitoring_paths
from ml_platform.serving.http.paths.operations import PROBLEM, Group, Paths, Served
from ml_platform.serving.http.paths.pipelines import pipeline_paths
from ml_platform.serving.http.paths.plain import plain_paths

__all__ = [
    "PROBLEM",
    "Group",
    "Paths",
    "Served",
    "control_paths",
    "feedback_paths",
    "inference_paths",
    "invocation_paths",
    "monitoring_paths",
    "pipeline_paths",
    "plain_paths",
]
