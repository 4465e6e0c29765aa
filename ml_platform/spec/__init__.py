"""What a use case declares, and the names and windows derived from it."""
