"""The embedded 3D prior: an exact mixture of Gaussians around renders of splat models."""
