"""Priors and the objectives that turn their answers into gradients."""
