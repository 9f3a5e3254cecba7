"""Prompts of text and images for models in the diffusers layout."""
