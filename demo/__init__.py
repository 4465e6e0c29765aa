"""A year of flights, walked through in order as if it were live."""
