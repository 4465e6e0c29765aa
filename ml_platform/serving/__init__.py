"""What is served over a network: predictions, and pages of reports."""
