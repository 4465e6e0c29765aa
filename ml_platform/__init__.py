"""A platform for batch and real-time machine learning on tables."""
