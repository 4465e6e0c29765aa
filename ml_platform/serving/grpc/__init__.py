"""The prediction service over gRPC."""

from ml_platform.serving.grpc.server import start_server

__all__ = ["start_server"]
