"""Measuring how good answers are: runs that can be resumed, and metrics."""
