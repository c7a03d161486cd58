"""Fixtures of the checkpoints' tests."""

from tests.hugging_face import make, wanted

__all__ = ["make", "wanted"]
