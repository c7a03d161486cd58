"""Measuring how good answers are. NumPy only."""
