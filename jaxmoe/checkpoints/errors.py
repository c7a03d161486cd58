"""The error of a checkpoint that cannot be read or written."""

from jaxmoe.files import printable

SHOWN, LONGEST = 10, 400
"""Failures that a message shows, and letters of each."""


class CheckpointError(ValueError):
    """Says what was expected, what was found, what to do; `failures` lists them all."""

    def __init__(self, message: str, failures: tuple[str, ...] = ()):
        """Takes the message and, where it abridges a list, the whole list."""
        super().__init__(printable(message))
        self.failures = failures or (message,)

    @classmethod
    def listing(cls, title: str, failures: list[str]) -> "CheckpointError":
        """One error for many failures; the message shows the first `SHOWN`."""
        lines = [
            f if len(f) <= LONGEST else f"{f[:LONGEST]} ..." for f in failures[:SHOWN]
        ]
        if more := len(failures) - len(lines):
            lines.append(f"... and {more} more")
        return cls("\n  ".join([f"{title}:", *lines]), tuple(failures))

    @classmethod
    def quantised(cls, what: str) -> "CheckpointError":
        """The error for weights in a quantised type; `what` names where that was seen.

        One sentence: no download of the same files would help.
        """
        return cls(
            f"{what}: these are quantised weights (FP8, MX, GPTQ, AWQ or the like) of "
            "another kind than quantization_config in config.json says, or of one that "
            "is not read here; take the release of this model in bfloat16 or float32"
        )

    @classmethod
    def untied(cls, copy: str, tied: str) -> "CheckpointError":
        """The error for a tensor that differs from the one the config ties it to."""
        return cls(
            f"{copy}: the config ties it to {tied}, expected equal tensors, found "
            "different ones; set tie_word_embeddings to false in config.json if the "
            "model has a head of its own"
        )
