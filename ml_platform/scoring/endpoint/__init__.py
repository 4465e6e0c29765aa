"""Predictions of a batch by a server: asked in requests of so many rows, kept until written."""

from ml_platform.scoring.endpoint.answers import Answered, RowChunk
from ml_platform.scoring.endpoint.asking import EndpointClient, open_endpoint

__all__ = ["Answered", "EndpointClient", "RowChunk", "open_endpoint"]
