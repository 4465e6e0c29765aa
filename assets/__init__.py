"""Functions that turn a use case into Dagster assets, one file a kind."""
