"""Meshes read from files of other programs."""
