"""Training of the judge."""
