"""The optimization loop and its parts."""
