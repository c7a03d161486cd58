"""How the demo model is trained, in numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How the model is trained.

    steps: updates. batch: answers in an update. learning_rate: the highest.
    warm_up: updates until the learning rate is reached, from which it falls linearly
      to 0.
    weight_decay: of AdamW. clip: the largest norm of a gradient.
    balance: weight of the balancing loss, which is 1 where all experts are chosen
      equally often.
    seed: of weights and batches.
    """

    steps: int = 4_000
    batch: int = 128
    learning_rate: float = 3e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    balance: float = 0.01
    seed: int = 0
