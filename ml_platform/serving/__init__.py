"""Predictions over a network, and what is written down of them."""
