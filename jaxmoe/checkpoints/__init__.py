"""Where weights are read from and written to."""
