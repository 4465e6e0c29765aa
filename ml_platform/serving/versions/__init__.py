"""Which model versions answer, and how one that is tried does beside them."""
