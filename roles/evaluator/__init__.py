"""The evaluator: attacks published transformation networks and measures what it recovers; holds the test labels."""
