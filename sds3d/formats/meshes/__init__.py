"""Meshes in files without a scene: shared parts of their readers."""
