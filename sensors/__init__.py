"""Sensors: what arrives is ingested, what drifts is retrained."""
