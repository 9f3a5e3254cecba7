"""Comparisons of objectives, and their page."""
