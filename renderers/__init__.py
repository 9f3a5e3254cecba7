"""Cameras, scenes, and the kernels that draw them."""
