"""Objectives: rules that turn predictions of a prior into the gradient of a render."""
