"""What the platform costs and what it gains, measured beside the alternatives in the same run."""
