"""Checks for objectives and priors of others, and priors with known answers to run them on."""
