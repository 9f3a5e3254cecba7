"""Text-to-image models of others, in the layout of diffusers: every family behind the same questions."""
