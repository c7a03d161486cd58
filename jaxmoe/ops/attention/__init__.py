"""Attention over cached positions, in chunks (`chunked`) or whole arrays (`whole`)."""
