"""Meshes from scenes: isosurfaces, simplification, texturing."""
