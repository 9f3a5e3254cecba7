"""Metrics of renders, meshes and assets."""
