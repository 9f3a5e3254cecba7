"""Triangle meshes: rasterization, shading and the scene."""
