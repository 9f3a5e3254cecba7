"""Splat fits and packing for the embedded 3D prior."""
