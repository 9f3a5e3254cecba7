"""Radiance fields: voxels and hash grids, rendered along rays."""
