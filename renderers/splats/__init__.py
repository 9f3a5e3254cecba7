"""Gaussian splats and surfels: rasterization, densification and the scene."""
