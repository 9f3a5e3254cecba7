"""Run directories: written, resumed, reproduced."""
