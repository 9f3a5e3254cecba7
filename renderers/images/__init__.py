"""A flat image as a scene."""
