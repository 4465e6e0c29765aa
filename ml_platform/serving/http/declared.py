"""Every path of the service, as it is declared beside its handler."""

from ml_platform.serving.http.control import ControlPaths
from ml_platform.serving.http.documents import Documents
from ml_platform.serving.http.endpoints import PUBLIC, endpoints_of
from ml_platform.serving.http.feedback import FeedbackPaths
from ml_platform.serving.http.invocations import Invocations
from ml_platform.serving.http.monitoring import MonitoringPaths
from ml_platform.serving.http.pipelines import PipelinePaths
from ml_platform.serving.http.plain import Plain
from ml_platform.serving.http.v2 import V2

HANDLERS = (
    Documents,
    Plain,
    FeedbackPaths,
    V2,
    Invocations,
    MonitoringPaths,
    ControlPaths,
    PipelinePaths,
)
ENDPOINTS = endpoints_of(HANDLERS)
PUBLIC_PATHS = frozenset(each.path for each in ENDPOINTS if each.needs is PUBLIC)
HEALTH_PATHS = frozenset(each.path for each in ENDPOINTS if each.is_health)
"""Answered on spare connections too."""
