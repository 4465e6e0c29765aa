"""Predictions of a batch by a server: asked in requests of so many rows, kept until written."""

from ml_platform.scoring.endpoint.answers import Answered, Chunk
from ml_platform.scoring.endpoint.asking import Endpoint, open_endpoint

__all__ = ["Answered", "Chunk", "Endpoint", "open_endpoint"]
