"""The network: Flax nnx modules that declare weights, pure functions inside."""
