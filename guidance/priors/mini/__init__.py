"""The embedded 2D prior: a small network trained on renders of household objects."""
