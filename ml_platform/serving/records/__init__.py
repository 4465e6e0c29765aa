"""What the service writes down for good: requests, feedback, reviews, actions."""
