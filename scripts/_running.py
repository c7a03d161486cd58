"""What tells checkpoints apart."""


def digest_of(checkpoint: str) -> str:
    """What tells the weights of a checkpoint from all others, in whatever format.

    Of Hugging Face files all weights are read; a converted checkpoint states it.
    """
    from jaxmoe.checkpoints.source import open_source

    return open_source(checkpoint).digest()
