"""Conditions of a batch of views: view-dependent prompts, Perp-Neg, debiased prompts."""
